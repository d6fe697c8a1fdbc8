"""RabbitMQ: one connection kept open, deliveries in, confirmed messages out. No other package imports pika."""
