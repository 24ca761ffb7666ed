"""Hosts on one machine: network namespaces, and a switch between them that loses, delays and cuts."""
