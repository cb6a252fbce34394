"""Results to look at: figures of a run, and one HTML page that holds them."""
