#!/bin/sh
# Dumps both databases; a dump has its final name only when it is whole; old ones go after KEEP_DAYS.
set -eu
stamp=$(date -u +%Y%m%dT%H%M%SZ)
for name in mlflow optuna; do
  pg_dump --format=custom --no-owner --file="$BACKUP_DIR/.$name.part" "$name"
  mv "$BACKUP_DIR/.$name.part" "$BACKUP_DIR/$name-$stamp.dump"
  echo "backup: $name-$stamp.dump ($(wc -c <"$BACKUP_DIR/$name-$stamp.dump") bytes)"
done
find "$BACKUP_DIR" -name '*.dump' -mtime "+$KEEP_DAYS" -delete
