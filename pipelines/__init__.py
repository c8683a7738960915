"""The DAG: how the components fit together, how it is compiled, run locally and submitted."""
