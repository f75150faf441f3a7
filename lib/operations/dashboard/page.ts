/** The page and its style, as the browser gets them: no build step, and nothing from elsewhere. */

export const html = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>WebSocket groups</title>
<link rel="stylesheet" href="dashboard.css">
<script src="dashboard.js" type="module"></script>
</head>
<body>
<header>
<h1><a href="#">WebSocket groups</a></h1><p id="link" role="status">Connecting</p>
<div class="find"><label for="name">Name</label><input id="name" autocomplete="off" spellcheck="false" maxlength="255">
<button id="find-group">Group</button><button id="find-user">User</button></div>
</header>
<main>
<section aria-label="Problems"><ul id="problems"></ul></section>
<section id="detail" aria-labelledby="h-detail" hidden><h2 id="h-detail"></h2><p id="detail-summary" role="status"></p>
<div id="detail-actions" class="buttons"></div><div id="detail-body"></div></section>
<div id="overview">
<section aria-labelledby="h-total"><h2 id="h-total">All instances</h2><dl id="totals"></dl></section>
<section aria-labelledby="h-instances"><h2 id="h-instances">Instances</h2><div id="instances"></div></section>
<div class="pair">
<section aria-labelledby="h-groups"><h2 id="h-groups">Busiest groups</h2>
<table><thead><tr><th scope="col">Group<th scope="col">Members</tr></thead>
<tbody id="groups"></tbody></table></section>
<section aria-labelledby="h-users"><h2 id="h-users">Busiest users</h2>
<table><thead><tr><th scope="col">User<th scope="col">Connections</tr></thead>
<tbody id="users"></tbody></table></section>
</div>
<section aria-labelledby="h-events"><h2 id="h-events">Gaps and limits</h2><ol id="events"></ol></section>
<section aria-labelledby="h-configuration"><h2 id="h-configuration">Configuration</h2>
<button id="configuration-show">Show</button><p id="configuration-note"></p><pre id="configuration" tabindex="0" hidden></pre></section>
</div>
</main>
<dialog id="dialog" aria-labelledby="dialog-title">
<h2 id="dialog-title"></h2>
<p id="dialog-reason-row"><label for="dialog-reason">Reason, for the user's clients</label><input id="dialog-reason" maxlength="100"></p>
<p id="dialog-minutes-row"><label for="dialog-minutes">Minutes</label>
<input id="dialog-minutes" type="number" min="1" max="43200" value="60"></p>
<p class="buttons"><button id="dialog-cancel">Cancel</button><button id="dialog-go" class="danger"></button></p>
</dialog>
</body>
</html>
`

export const css =
  `:root { color-scheme: light dark; --line: #8884; --soft: #8881; --bad: #b3261e; --good: #146c2e; --plot: #3367d6; --link: #1a56c4 }
@media (prefers-color-scheme: dark) { :root { --bad: #ff8a80; --good: #7bd88f; --plot: #8ab4f8; --link: #8ab4f8 } }
* { box-sizing: border-box }
body { margin: 0; font: 15px/1.45 system-ui, sans-serif; background: Canvas; color: CanvasText }
header, main { max-width: 1100px; margin: 0 auto; padding: 0 16px }
header { display: flex; flex-wrap: wrap; justify-content: space-between; align-items: center; gap: 0 16px }
h1 { font-size: 20px } h1 a { color: inherit; text-decoration: none } h2 { font-size: 16px; margin: 24px 0 8px; overflow-wrap: anywhere }
a { color: var(--link) }
input, button { font: inherit; padding: 4px 10px; border: 1px solid var(--line); border-radius: 6px; background: Field; color: FieldText;
  min-width: 0 }
button { background: var(--soft); color: inherit; cursor: pointer } button:hover { border-color: currentColor }
.danger { color: var(--bad) }
.find { display: flex; gap: 8px; align-items: center; flex: 0 1 420px } .find input { flex: 1; width: 6em }
.buttons { display: flex; flex-wrap: wrap; gap: 8px; margin-bottom: 8px }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(320px, 100%), 1fr)); gap: 0 24px }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 8px; margin: 0 }
dl div { border: 1px solid var(--line); border-radius: 6px; padding: 8px; min-width: 0 }
dt { font-size: 13px } dd { margin: 0; font-size: 20px; font-variant-numeric: tabular-nums; overflow-wrap: anywhere }
svg { display: block; width: 100%; height: 32px }
polyline { fill: none; stroke: var(--plot); stroke-width: 1.5; vector-effect: non-scaling-stroke }
article { border: 1px solid var(--line); border-radius: 6px; padding: 8px 12px; margin-bottom: 8px; overflow-wrap: anywhere }
article h3 { margin: 0; font-size: 15px } article p { margin: 4px 0 0 }
table { width: 100%; border-collapse: collapse } td, th { text-align: left; padding: 4px 8px 4px 0; border-bottom: 1px solid var(--line);
overflow-wrap: anywhere } th { white-space: nowrap }
td:last-child, th:last-child { text-align: right; padding-right: 0 } .texts td:last-child, .texts th:last-child { text-align: left }
pre { overflow: auto; max-height: 60vh; border: 1px solid var(--line); border-radius: 6px; padding: 8px 12px; font-size: 13px }
ul, ol { padding-left: 20px; overflow-wrap: anywhere } #problems:empty { display: none }
dialog { border: 1px solid var(--line); border-radius: 8px; width: min(420px, calc(100vw - 32px)) } dialog h2 { margin-top: 0 }
dialog::backdrop { background: #0008 } dialog label { display: block } dialog input { width: 100% } dialog .buttons { justify-content: end }
.bad, #problems { color: var(--bad); font-weight: 600 } .good { color: var(--good) } .quiet { opacity: .75 }
`
