// Announces one image to Autotag, and reads results until that of this image has come. Node.js 18 or newer.
//   npm install amqplib
//   AMQP_URL=amqp://dms:password@rabbitmq/ node publish.mjs photos/harbour.jpg

import { randomUUID } from 'node:crypto'
import amqp from 'amqplib'

const LONGEST_WAIT_S = 120
const path = process.argv[2]

const event = {
  specversion: '1.0',
  id: randomUUID(), // keep id and source when it has to be sent again: it is the same event then
  source: '/dms/documents',
  type: 'dms.image.uploaded.v1',
  time: new Date().toISOString(),
  data: {
    asset_id: path,
    instance: 'default',
    content: { path },
    existing_tags: [],
    context: { version: '1.0' }, // comes back in the result
  },
}

const connection = await amqp.connect(process.env.AMQP_URL ?? 'amqp://guest:guest@localhost/')
await publish(event)
process.exitCode = (await readUntilResultOf(event.id)) ? 0 : 1
await connection.close()

/** Resolves when RabbitMQ has stored the event; rejects otherwise. */
async function publish(event) {
  const channel = await connection.createConfirmChannel()
  let returned = false
  channel.on('return', () => { returned = true })
  channel.publish('autotag.images', 'live', Buffer.from(JSON.stringify(event)), { // 'bulk' if no user waits for it
    contentType: 'application/cloudevents+json', messageId: event.id, persistent: true, mandatory: true,
  })
  await channel.waitForConfirms()
  await channel.close()
  if (returned) throw new Error('no queue takes the event: has Autotag run on this virtual host?')
}

async function readUntilResultOf(id) {
  const channel = await connection.createChannel()
  await channel.prefetch(10)
  const seen = new Set() // a DMS keeps these ids where they outlive a restart
  return new Promise((resolve) => {
    const timer = setTimeout(() => {
      console.error(`no result within ${LONGEST_WAIT_S} s`)
      resolve(false)
    }, LONGEST_WAIT_S * 1000)
    channel.consume('autotag.results', (message) => {
      if (message === null) return // the queue was deleted
      const result = JSON.parse(message.content).data
      if (!seen.has(message.properties.messageId)) {
        seen.add(message.properties.messageId)
        console.log(result.asset_id, result.status, result.tags.map((tag) => tag.name).join(', '))
      }
      channel.ack(message) // only now that it has been dealt with
      if (result.event_id === id && result.complete) {
        clearTimeout(timer)
        channel.close().then(() => resolve(true))
      }
    })
  })
}
