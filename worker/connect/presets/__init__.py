"""What is the same in every installation of one system, as tables of `[connect.NAME]`: data, a file for each system."""
