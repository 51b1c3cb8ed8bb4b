"""The steps of the flows: where the database and the API meet."""
