// Announces one image to Autotag, and reads results until that of this image has come.
//   Needs com.rabbitmq:amqp-client 5 and com.fasterxml.jackson.core:jackson-databind 2 on the class path; Java 11.
//   AMQP_URL=amqp://dms:password@rabbitmq/ java -cp 'lib/*' Publish.java photos/harbour.jpg

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.DefaultConsumer;
import com.rabbitmq.client.Envelope;
import java.io.IOException;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;

public class Publish {
    private static final long LONGEST_WAIT_S = 120;
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] arguments) throws Exception {
        String path = arguments[0];
        String id = UUID.randomUUID().toString(); // keep id and source when it has to be sent again
        Map<String, Object> event = Map.of(
            "specversion", "1.0",
            "id", id,
            "source", "/dms/documents",
            "type", "dms.image.uploaded.v1",
            "time", Instant.now().toString(),
            "data", Map.of(
                "asset_id", path,
                "instance", "default",
                "content", Map.of("path", path),
                "existing_tags", List.of(),
                "context", Map.of("version", "1.0"))); // comes back in the result

        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(System.getenv().getOrDefault("AMQP_URL", "amqp://guest:guest@localhost/%2F"));
        try (Connection connection = factory.newConnection()) {
            publish(connection, id, JSON.writeValueAsBytes(event));
            System.exit(readUntilResultOf(connection, id) ? 0 : 1);
        }
    }

    /** Returns when RabbitMQ has stored the event; throws an IOException otherwise. */
    private static void publish(Connection connection, String id, byte[] body) throws Exception {
        try (Channel channel = connection.createChannel()) {
            channel.confirmSelect();
            AtomicBoolean returned = new AtomicBoolean();
            channel.addReturnListener((code, text, exchange, key, properties, content) -> returned.set(true));
            AMQP.BasicProperties properties = new AMQP.BasicProperties.Builder()
                .contentType("application/cloudevents+json").messageId(id).deliveryMode(2).build();
            channel.basicPublish("autotag.images", "live", true, properties, body); // "bulk" if no user waits for it
            channel.waitForConfirmsOrDie(TimeUnit.SECONDS.toMillis(30));
            if (returned.get()) {
                throw new IOException("no queue takes the event: has Autotag run on this virtual host?");
            }
        }
    }

    private static boolean readUntilResultOf(Connection connection, String id) throws Exception {
        CountDownLatch found = new CountDownLatch(1);
        Set<String> seen = new HashSet<>(); // a DMS keeps these ids where they outlive a restart
        Channel channel = connection.createChannel();
        channel.basicQos(10);
        channel.basicConsume("autotag.results", false, new DefaultConsumer(channel) {
            @Override
            public void handleDelivery(String tag, Envelope envelope, AMQP.BasicProperties properties, byte[] body)
                    throws IOException {
                JsonNode result = JSON.readTree(body).get("data");
                if (seen.add(properties.getMessageId())) {
                    List<String> tags = new ArrayList<>();
                    result.get("tags").forEach(each -> tags.add(each.get("name").asText()));
                    System.out.println(result.get("asset_id").asText() + " " + result.get("status").asText() + " "
                        + String.join(", ", tags));
                }
                channel.basicAck(envelope.getDeliveryTag(), false); // only now that it has been dealt with
                if (id.equals(result.get("event_id").asText()) && result.get("complete").asBoolean()) {
                    found.countDown();
                }
            }
        });
        if (!found.await(LONGEST_WAIT_S, TimeUnit.SECONDS)) {
            System.err.println("no result within " + LONGEST_WAIT_S + " s");
            return false;
        }
        return true;
    }
}
