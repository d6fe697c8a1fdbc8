"""The code that runs inside child processes. The parent imports nothing from here."""
