"""Tango device classes, the server executable and the operator's command line."""
