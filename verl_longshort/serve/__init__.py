"""A trained pair as a service: answers as events, and the HTTP server in front of it. Knows no verl."""
