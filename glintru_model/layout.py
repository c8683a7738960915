"""Names of the files that one step leaves for another where no class of theirs writes and reads them."""

INTERACTIONS_FILE = "interactions.parquet"  # what ingest wrote: the clean log
ITEMS_FILE = "items.parquet"  # beside the interactions: titles
VOCABULARY_FILE = "vocabulary.arrow"  # beside the sequences, and copied beside every model trained on them
DATA_REPORT_FILE = "data_report.json"  # beside the interactions: counts and distributions
ORACLE_FILE = "oracle.npz"  # beside the interactions of a synthetic log: its true probabilities
CEILING_FILE = "ceiling.json"  # beside the sequences of a synthetic log: the best possible ranking
TRAINING_FILE = "training.json"  # beside the model: learning curves and cost
TRAINED_EVENTS_FILE = "trained_events.parquet"  # beside the model, and in its MLflow run: what it was trained on
