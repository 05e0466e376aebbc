"""The shared store: one PostgreSQL database, for collectors on several machines."""
