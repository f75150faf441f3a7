import { escape, frame, short, width } from './chart.ts'

interface Bar {
  readonly label: string
  readonly color: string
  readonly value: number
  readonly low: number
  readonly high: number
  readonly part?: number
}
interface BarChart { readonly title: string, readonly xTitle: string, readonly partTitle?: string, readonly bars: readonly Bar[] }

const left = 190
const right = width - 90
const top = 48
const rowHeight = 28
const fixed = (value: number): string => String(Math.round(value * 10) / 10)

/** A bar for each system with its value behind it; the darker part of one is a part of the value, the thin line the range of the runs. */
export function barChart ({ title, xTitle, partTitle, bars }: BarChart): string {
  if (bars.length === 0) return frame(60, `${title}: nothing measured`, [])
  const most = Math.max(...bars.map(({ value, high }) => Math.max(value, high)))
  const at = (value: number): number => left + Math.max(0, value) / most * (right - left)
  const bottom = top + bars.length * rowHeight
  const step = [1, 2, 5].flatMap(
    digit => [0.1, 1, 10, 100].map(power => digit * power)
  ).sort((a, b) => a - b).find(step => most / step <= 8) ?? most
  const inner = (part: number, value: number, y: number, color: string): string =>
    `<rect x="${left}" y="${y + 3}" width="${fixed(at(Math.min(part, value)) - left)}" height="${rowHeight - 8}" fill="${color}"/>`
  const parts: string[] = []
  for (let tick = 0; tick <= most; tick += step) {
    const x = fixed(at(tick))
    parts.push(
      `<path d="M${x} ${top - 4}V${bottom}" stroke="#e0e0e0"/><text x="${x}" y="${bottom + 16}" text-anchor="middle">${short(tick)}</text>`
    )
  }
  for (const [i, { label, color, value, low, high, part }] of bars.entries()) {
    const y = top + i * rowHeight
    parts.push(
      `<text x="${left - 8}" y="${y + 16}" text-anchor="end">${escape(label)}</text>`,
      `<rect x="${left}" y="${y + 3}" width="${fixed(at(value) - left)}" height="${rowHeight - 8}" fill="${color}" fill-opacity="0.55"/>`,
      ...(part === undefined ? [] : [inner(part, value, y, color)]),
      ...(high > low ? [`<path d="M${fixed(at(low))} ${y + 13}H${fixed(at(high))}" stroke="#212121"/>`] : []),
      `<text x="${fixed(at(Math.max(value, high)) + 6)}" y="${y + 17}" font-weight="600">${short(Number(value.toPrecision(3)))}</text>`
    )
  }
  const legend = escape(partTitle === undefined ? xTitle : `${xTitle}; ${partTitle}`)
  parts.push(`<text x="${(left + right) / 2}" y="${bottom + 38}" text-anchor="middle">${legend}</text>`)
  return frame(bottom + 52, title, parts)
}
