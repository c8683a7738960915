"""One function per pipeline step."""
