/** Parses a text of the room. Whatever the text says, it becomes text on the page, never markup. */
export function parse (text) {
  const said = /^\[([^\]]+)\]: ([^]*)$/.exec(text)
  if (said) return { kind: 'said', name: said[1], text: said[2] }
  const moved = /^(.+) (joined|left) the room$/.exec(text)
  if (moved) return { kind: moved[2], name: moved[1] }
  if (text.startsWith('Welcome ') && text.endsWith('!')) return { kind: 'welcome', text }
  return { kind: 'announcement', text }
}

/** Why messages are lost, as the end of a sentence. */
export const gapReasons = {
  epoch: 'the server lost its record of this room, and began a new one',
  rewound: 'the server went back to an older record of this room',
  trimmed: 'there were more than the server keeps, or it was too long ago',
  unavailable: 'the server cannot read its record of this room'
}

/** Why a message was not sent, by the code of the error. For all other codes the page says just that it was not sent. */
export const failures = {
  UNKNOWN_OUTCOME: 'Perhaps not sent: the connection broke',
  QUEUE_FULL: 'Not sent: too many wait already',
  WSG_BACKPLANE_UNAVAILABLE: 'Not sent: the server is cut off',
  WSG_TIMEOUT: 'Perhaps not sent: no answer'
}
