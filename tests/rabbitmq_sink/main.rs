//! What only RabbitMQ does, on a real broker.

mod lab;

mod blocked;
mod connection;
mod order;
mod refusals;
mod routing;
