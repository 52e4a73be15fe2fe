"""The one database: tables, transactions, the revision log, and the in-memory view that the log feeds."""
