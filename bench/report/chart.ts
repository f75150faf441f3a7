export interface Point { readonly x: number, readonly y: number, readonly low: number, readonly high: number }
export interface Series { readonly label: string, readonly color: string, readonly dash?: string, readonly points: readonly Point[] }
interface Chart { readonly title: string, readonly xTitle: string, readonly yTitle: string, readonly series: readonly Series[] }

export const width = 760
const height = 440
const plot = { left: 78, right: 560, top: 44, bottom: 378 }
const labelGap = 15

export const escape = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
const fixed = (value: number): string => String(Math.round(value * 10) / 10)

export function frame (height: number, title: string, parts: readonly string[]): string {
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" ` +
      'font-family="system-ui, sans-serif" font-size="12" fill="#212121" role="img">',
    `<title>${escape(title)}</title>`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    `<text x="16" y="24" font-size="15" font-weight="600">${escape(title)}</text>`,
    ...parts,
    '</svg>',
    ''
  ].join('\n')
}

export function short (value: number): string {
  if (value >= 1e6) return `${value / 1e6} M`
  return value >= 1e3 ? `${value / 1e3} k` : String(Number(value.toPrecision(3)))
}

/** From value to place, both axes logarithmic. */
function scale (values: readonly number[], from: number, to: number): { at (value: number): number, ticks: number[] } {
  const [low, high] = [Math.log10(Math.min(...values)), Math.log10(Math.max(...values))]
  const pad = Math.max(0.05, (high - low) * 0.04)
  const [first, last] = [low - pad, high + pad]
  const candidates = [1, 2, 5].flatMap(digit => Array.from({ length: 16 }, (_, power) => digit * 10 ** (power - 6)))
  const inside = candidates.map(value => Number(value.toPrecision(1))).filter(
    value => Math.log10(value) >= first && Math.log10(value) <= last
  ).sort((a, b) => a - b)
  const decades = inside.filter(value => Number.isInteger(Math.log10(value)))
  return { at: value => from + (Math.log10(value) - first) / (last - first) * (to - from), ticks: decades.length >= 4 ? decades : inside }
}

/** Lines on logarithmic axes, each labelled at its end; a thin upright line is the range of the runs. */
export function lineChart ({ title, xTitle, yTitle, series }: Chart): string {
  const drawn = series.map(
    one => ({ ...one, points: one.points.filter(({ x, y }) => x > 0 && y > 0) })
  ).filter(({ points }) => points.length > 0)
  const points = drawn.flatMap(({ points }) => points)
  if (points.length === 0) return frame(60, `${title}: nothing measured`, [])
  const xs = [...new Set(points.map(({ x }) => x))].sort((a, b) => a - b)
  const x = scale(xs, plot.left, plot.right)
  const y = scale(points.flatMap(({ y, low, high }) => [y, low > 0 ? low : y, high]), plot.bottom, plot.top)
  const parts = [
    ...y.ticks.map(tick =>
      `<path d="M${plot.left} ${fixed(y.at(tick))}H${plot.right}" stroke="#e0e0e0"/>` +
      `<text x="${plot.left - 8}" y="${fixed(y.at(tick) + 4)}" text-anchor="end">${short(tick)}</text>`),
    ...xs.map(value =>
      `<path d="M${fixed(x.at(value))} ${plot.bottom}v5" stroke="#757575"/>` +
      `<text x="${fixed(x.at(value))}" y="${plot.bottom + 19}" text-anchor="middle">${short(value)}</text>`),
    `<path d="M${plot.left} ${plot.top}V${plot.bottom}H${plot.right}" fill="none" stroke="#757575"/>`,
    `<text x="${(plot.left + plot.right) / 2}" y="${plot.bottom + 44}" text-anchor="middle">${escape(xTitle)}</text>`,
    `<text transform="translate(20 ${(plot.top + plot.bottom) / 2}) rotate(-90)" text-anchor="middle">${escape(yTitle)}</text>`
  ]
  for (const { color, dash, points } of drawn) {
    const line = points.map((point, i) => `${i === 0 ? 'M' : 'L'}${fixed(x.at(point.x))} ${fixed(y.at(point.y))}`).join('')
    parts.push(
      `<path d="${line}" fill="none" stroke="${color}" stroke-width="2"${dash === undefined ? '' : ` stroke-dasharray="${dash}"`}/>`
    )
    for (const point of points) {
      if (point.low > 0 && point.high > point.low) {
        parts.push(
          `<path d="M${fixed(x.at(point.x))} ${fixed(y.at(point.low))}V${fixed(y.at(point.high))}" stroke="${color}" stroke-opacity="0.5"/>`
        )
      }
      parts.push(`<circle cx="${fixed(x.at(point.x))}" cy="${fixed(y.at(point.y))}" r="3" fill="${color}"/>`)
    }
  }
  const ends = drawn.flatMap(({ label, color, points }) => {
    const end = points.at(-1)
    return end === undefined ? [] : [{ label, color, x: x.at(end.x), y: y.at(end.y) }]
  })
  const places = apart(ends.map(end => end.y))
  for (const [i, { label, color, x, y }] of ends.entries()) {
    const place = places[i] ?? y
    parts.push(
      `<path d="M${fixed(x + 5)} ${fixed(y)}L${plot.right + 14} ${fixed(place)}" stroke="${color}" stroke-opacity="0.35" fill="none"/>`
    )
    parts.push(`<text x="${plot.right + 18}" y="${fixed(place + 4)}" fill="${color}">${escape(label)}</text>`)
  }
  return frame(height, title, parts)
}

/** Moves labels so that none covers another, and each stays as near to its line as it can. */
function apart (wanted: readonly number[]): number[] {
  const order = wanted.map((_, i) => i).sort((a, b) => (wanted[a] ?? 0) - (wanted[b] ?? 0))
  const places = [...wanted]
  let next = plot.top
  for (const i of order) {
    places[i] = Math.max(next, wanted[i] ?? 0)
    next = (places[i] ?? 0) + labelGap
  }
  let last = plot.bottom
  for (const i of order.reverse()) {
    places[i] = Math.min(last, places[i] ?? 0)
    last = (places[i] ?? 0) - labelGap
  }
  return places
}
