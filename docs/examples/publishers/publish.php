<?php
// Announces one image to Autotag, and reads results until that of this image has come. PHP 8.
//   composer require php-amqplib/php-amqplib
//   AMQP_URL=amqp://dms:password@rabbitmq/ php publish.php photos/harbour.jpg
declare(strict_types=1);

// Composer's loader, or that of Debian's package php-amqplib.
require is_file(__DIR__ . '/vendor/autoload.php') ? __DIR__ . '/vendor/autoload.php' : 'PhpAmqpLib/autoload.php';

use PhpAmqpLib\Channel\AMQPChannel;
use PhpAmqpLib\Connection\AMQPStreamConnection;
use PhpAmqpLib\Exception\AMQPTimeoutException;
use PhpAmqpLib\Message\AMQPMessage;

const LONGEST_WAIT_S = 120;

/** Returns when RabbitMQ has stored the event; throws a RuntimeException otherwise. */
function publish(AMQPChannel $channel, array $event): void
{
    $problem = null;
    $channel->confirm_select();
    $channel->set_nack_handler(function () use (&$problem): void {
        $problem = 'RabbitMQ has refused the event: is its queue full?';
    });
    $channel->set_return_listener(function () use (&$problem): void {
        $problem = 'no queue takes the event: has Autotag run on this virtual host?';
    });
    $message = new AMQPMessage(json_encode($event, JSON_THROW_ON_ERROR), [
        'content_type' => 'application/cloudevents+json',
        'message_id' => $event['id'],
        'delivery_mode' => AMQPMessage::DELIVERY_MODE_PERSISTENT,
    ]);
    $channel->basic_publish($message, 'autotag.images', 'live', true); // 'bulk' if no user waits for it
    $channel->wait_for_pending_acks_returns(30);
    if ($problem !== null) {
        throw new RuntimeException($problem);
    }
}

$path = $argv[1];
$event = [
    'specversion' => '1.0',
    'id' => bin2hex(random_bytes(16)), // keep id and source when it has to be sent again: it is the same event then
    'source' => '/dms/documents',
    'type' => 'dms.image.uploaded.v1',
    'time' => gmdate('Y-m-d\TH:i:s\Z'),
    'data' => [
        'asset_id' => $path,
        'instance' => 'default',
        'content' => ['path' => $path],
        'existing_tags' => [],
        'context' => ['version' => '1.0'], // comes back in the result
    ],
];

$url = parse_url(getenv('AMQP_URL') ?: 'amqp://guest:guest@localhost/');
$connection = new AMQPStreamConnection(
    $url['host'],
    $url['port'] ?? 5672,
    urldecode($url['user']),
    urldecode($url['pass']),
    urldecode(substr($url['path'] ?? '', 1)) ?: '/',
);
$channel = $connection->channel();
publish($channel, $event);

$found = false;
$seen = []; // a DMS keeps these ids where they outlive a restart
$channel->basic_qos(0, 10, false);
$channel->basic_consume('autotag.results', '', false, false, false, false,
    function (AMQPMessage $message) use ($event, &$found, &$seen): void {
        $result = json_decode($message->getBody(), true, 512, JSON_THROW_ON_ERROR)['data'];
        if (!isset($seen[$message->get('message_id')])) {
            $seen[$message->get('message_id')] = true;
            echo "$result[asset_id] $result[status] ", implode(', ', array_column($result['tags'], 'name')), "\n";
        }
        $message->ack(); // only now that it has been dealt with
        $found = $found || ($result['event_id'] === $event['id'] && $result['complete']);
    });
try {
    while (!$found) {
        $channel->wait(null, false, LONGEST_WAIT_S);
    }
} catch (AMQPTimeoutException) {
    fwrite(STDERR, 'no result within ' . LONGEST_WAIT_S . " s\n");
    exit(1);
}
$channel->close();
$connection->close();
