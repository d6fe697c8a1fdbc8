#!/bin/sh
# Announces one image to Autotag, and reads results until that of this image has come. For trying things out: it goes by
# the HTTP API of RabbitMQ's management plugin, which is no way for many messages. Needs curl and jq.
#   RABBITMQ_API=http://dms:password@rabbitmq:15672/api sh publish.sh photos/harbour.jpg
set -eu

api=${RABBITMQ_API:-http://guest:guest@localhost:15672/api}
vhost=%2F
path=$1
id=$(cat /proc/sys/kernel/random/uuid) # keep id and source when it has to be sent again: it is the same event then

event=$(jq --null-input --compact-output --arg id "$id" --arg path "$path" --arg time "$(date -u +%Y-%m-%dT%H:%M:%SZ)" '{
    specversion: "1.0", id: $id, source: "/dms/documents", type: "dms.image.uploaded.v1", time: $time,
    data: {asset_id: $path, instance: "default", content: {path: $path}, existing_tags: [], context: {version: "1.0"}}
}')

post() { curl --silent --show-error --fail --header 'Content-Type: application/json' --data @- "$api/$1"; }

# The plugin publishes with `mandatory` and waits for the confirm: `routed` is true when RabbitMQ has stored the event.
jq --null-input --arg id "$id" --arg event "$event" '{
    routing_key: "live", payload: $event, payload_encoding: "string",
    properties: {content_type: "application/cloudevents+json", message_id: $id, delivery_mode: 2}
}' | post "exchanges/$vhost/autotag.images/publish" | jq --exit-status .routed >/dev/null || {
    echo "no queue takes the event: has Autotag run on this virtual host?" >&2
    exit 1
}

waited_s=0
while [ "$waited_s" -lt 120 ]; do
    # Taken and acknowledged at once, as HTTP knows no later ack; a DMS consumes over AMQP.
    results=$(echo '{"count": 10, "ackmode": "ack_requeue_false", "encoding": "auto"}' | post "queues/$vhost/autotag.results/get")
    printf %s "$results" | jq --raw-output '.[].payload | fromjson.data | "\(.asset_id) \(.status) \([.tags[].name] | join(", "))"'
    if printf %s "$results" | jq --exit-status --arg id "$id" \
        'any(.[].payload | fromjson.data; .event_id == $id and .complete)' >/dev/null; then
        exit 0
    fi
    sleep 1
    waited_s=$((waited_s + 1))
done
echo "no result within 120 s" >&2
exit 1
