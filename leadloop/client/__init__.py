"""The vendor's API over HTTP: typed calls in `api`, exceptions by the next action in `errors`."""
