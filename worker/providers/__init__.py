"""What can tag an image: the local model, the cloud services, and providers of other packages."""
