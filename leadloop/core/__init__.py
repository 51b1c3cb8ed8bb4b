"""Pure decisions: no clock, disk or network; the standard library, orjson and phonenumbers."""
