"""The control API: what a request may hold, who may send it, the server, and the client."""
