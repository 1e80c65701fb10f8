"""Payments, once for each order: consumer.py DATABASE_URL RABBITMQ_URL QUEUE. Nothing but inbox_accept."""

import json
import sys

import pika
import psycopg

database_url, rabbitmq_url, queue = sys.argv[1:]
database = psycopg.connect(database_url, autocommit=True)
connection = pika.BlockingConnection(pika.URLParameters(rabbitmq_url))
channel = connection.channel()
channel.basic_qos(prefetch_count=10)
for method, properties, body in channel.consume(queue):
    if properties.type != "OrderPlaced":
        channel.basic_ack(method.delivery_tag)
        continue
    order = json.loads(body)
    try:
        with database.transaction():
            accept = "select inbox_accept('payments', %s, '7 days')"
            if database.execute(accept, [properties.message_id]).fetchone()[0]:
                pay = "insert into payments (order_id, cents) values (%s, %s)"
                database.execute(pay, [order["order"], order["cents"]])
    except psycopg.Error:
        connection.sleep(0.1)  # quorum queues of RabbitMQ 4 drop what comes back too often
        channel.basic_nack(method.delivery_tag, requeue=True)
    else:
        channel.basic_ack(method.delivery_tag)  # only what is committed
