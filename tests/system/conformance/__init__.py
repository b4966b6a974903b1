"""Raw bytes, table by table, and what must come of them: see row.py for the form of a row, tables.py for the list."""
