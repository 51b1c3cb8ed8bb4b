"""The vendor's API: typed calls in `api`, what to do about failures in `errors`."""
