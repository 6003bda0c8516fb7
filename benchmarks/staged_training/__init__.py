"""A small English model made Korean: in EEVE's seven stages, all at once, and without new tokens."""
