"""The recommenders: architecture only, behind one interface."""
