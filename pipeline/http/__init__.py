"""The process `http`: health, metrics and status, over a local socket and over HTTP. It only watches the others."""
