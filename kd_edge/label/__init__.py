"""Labels for long recordings: cut and named in a page of one's own machine, kept in the folder's manifest."""
