"""Where a tap finds events: pages of track calls after a cursor, whatever they are kept in."""
