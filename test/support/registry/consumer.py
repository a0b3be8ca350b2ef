# Reads a topic from its beginning as Confluent's own client does, with the schemas of a registry:
# brokers, registry, topic, avro or json-schema, how many. Prints JSON, a line for each.
import json, sys
from confluent_kafka import Consumer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

brokers, registry, topic, kind, count = sys.argv[1:]
client = SchemaRegistryClient({"url": registry})
read = (
    AvroDeserializer(client)
    if kind == "avro"
    else JSONDeserializer(None, schema_registry_client=client)
)
consumer = Consumer(
    {"bootstrap.servers": brokers, "group.id": "test", "auto.offset.reset": "earliest"}
)
consumer.subscribe([topic])
plain = lambda value: value if value == value and abs(value) != float("inf") else str(value)
found = 0
while found < int(count):
    message = consumer.poll(1.0)
    if message is None:
        continue
    if message.error():
        sys.exit(str(message.error()))
    value = read(message.value(), SerializationContext(topic, MessageField.VALUE))
    for name, each in value.items():
        if isinstance(each, float):
            value[name] = plain(each)
        elif isinstance(each, int) and not isinstance(each, bool) and abs(each) > 2**53:
            value[name] = str(each)
    headers = {name: text.decode() for name, text in message.headers()}
    line = {
        "key": message.key().decode(),
        "time": message.timestamp()[1],
        "headers": headers,
        "value": value,
    }
    print(json.dumps(line, default=str))
    found += 1
consumer.close()
