"""RabbitMQ: one connection kept open, deliveries in, confirmed messages out. pika is imported nowhere else."""
