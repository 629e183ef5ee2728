"""Labels for long recordings: cut and named on a local web page, stored in the folder's manifest."""
