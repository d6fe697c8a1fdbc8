"""The far side of the socket: what runs inside a child process. The parent imports nothing from here."""
