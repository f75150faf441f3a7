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
<button id="find-group">Group</button><button id="find-user">User</button>
<button id="find-groups" title="Groups whose names start like this">List</button></div>
</header>
<main>
<section aria-label="Problems"><p id="verdict" role="status">No reports yet</p><ul id="problems"></ul></section>
<section id="detail" aria-labelledby="h-detail" hidden><h2 id="h-detail"></h2><p id="detail-summary" role="status"></p>
<div id="detail-actions" class="buttons"></div><div id="detail-body"></div></section>
<div id="overview">
<section aria-labelledby="h-total"><h2 id="h-total">All instances</h2><dl id="totals"></dl></section>
<section aria-labelledby="h-instances"><div class="bar"><h2 id="h-instances">Instances</h2>
<label>Find <input id="find-instance" type="search" maxlength="100" placeholder="name, version, state" autocomplete="off"></label>
<label>Order <select id="order"><option value="name">by name<option value="connections">most connections
<option value="lagP99">latest loop<option value="load">busiest
<option value="memory">most memory<option value="slow">most slow clients</select></label></div>
<p id="versions"></p>
<table class="instances"><thead><tr><th scope="col">Instance<th scope="col">State<th scope="col">Connections<th scope="col">Groups
<th scope="col">Loop p99<th scope="col">Busy<th scope="col">Memory<th scope="col">Redis</tr></thead><tbody id="instances"></tbody></table>
<p id="pages" class="buttons"><button id="page-back" hidden>Back</button><button id="page-next" hidden>Next</button>
<span id="instances-found" role="status"></span></p></section>
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
<button id="configuration-show">Show</button><p id="configuration-note"></p><div id="configuration-differences"></div>
<pre id="configuration" tabindex="0" hidden></pre></section>
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
* { box-sizing: border-box } [hidden] { display: none !important }
body { margin: 0; font: 15px/1.45 system-ui, sans-serif; background: Canvas; color: CanvasText }
header, main { max-width: 1100px; margin: 0 auto; padding: 0 16px }
header { display: flex; flex-wrap: wrap; justify-content: space-between; align-items: center; gap: 0 16px }
h1 { font-size: 20px } h1 a { color: inherit; text-decoration: none } h2 { font-size: 16px; margin: 24px 0 8px; overflow-wrap: anywhere }
h3 { font-size: 15px; margin: 12px 0 4px; overflow-wrap: anywhere }
a { color: var(--link) }
input, button, select { font: inherit; padding: 4px 10px; border: 1px solid var(--line); border-radius: 6px; background: Field;
  color: FieldText; min-width: 0 }
button { background: var(--soft); color: inherit; cursor: pointer; white-space: nowrap; overflow-wrap: normal }
button:hover { border-color: currentColor }
button:disabled { opacity: .4; cursor: default }
.danger { color: var(--bad) }
.find { display: flex; gap: 8px; align-items: center; flex: 0 1 460px } .find input { flex: 1; width: 6em }
.bar { display: flex; flex-wrap: wrap; gap: 0 16px; align-items: center; margin: 24px 0 8px } .bar h2 { margin: 0; flex: 1 }
.bar label { display: flex; gap: 8px; align-items: center; min-width: 0 }
.buttons { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; margin: 8px 0 }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(320px, 100%), 1fr)); gap: 0 24px }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 8px; margin: 0 }
dl div { border: 1px solid var(--line); border-radius: 6px; padding: 8px; min-width: 0 }
dt { font-size: 13px } dd { margin: 0; font-size: 20px; font-variant-numeric: tabular-nums; overflow-wrap: anywhere }
svg { display: block; width: 100%; height: 32px }
polyline { fill: none; stroke: var(--plot); stroke-width: 1.5; vector-effect: non-scaling-stroke }
table { width: 100%; border-collapse: collapse } td, th { text-align: left; padding: 4px 8px 4px 0; border-bottom: 1px solid var(--line);
overflow-wrap: anywhere } thead th { white-space: nowrap; font-size: 13px }
td:last-child, th:last-child { text-align: right; padding-right: 0 } .texts td:last-child, .texts th:last-child { text-align: left }
.instances { font-variant-numeric: tabular-nums } .instances td, .instances th { vertical-align: top; padding-right: 12px }
.instances td:last-child, .instances thead th:last-child { text-align: left; padding-right: 0 }
.instances td:nth-child(n + 3) { overflow-wrap: normal }
small { display: block; font-size: 12px; font-weight: 400; color: GrayText } .bad small { color: inherit }
@media (max-width: 800px) {
  :is(.instances, .people, .messages) thead { position: absolute; clip-path: inset(50%); width: 1px; height: 1px; overflow: hidden }
  :is(.instances, .people, .messages) tr { display: grid; grid-template-columns: repeat(3, 1fr); gap: 4px 12px; padding: 8px 0;
    border-bottom: 1px solid var(--line) }
  :is(.instances, .people, .messages) :is(td, th) { padding: 0; border: 0 } .instances th { grid-column: 1 / -1 }
  .people td:is(:first-child, :nth-child(4)), .messages td:last-child { grid-column: 1 / -1 } .people td:empty { display: none }
  .people td:last-child { grid-area: 2 / 3 }
  .messages tr { grid-template-columns: auto 1fr }
  :is(.instances td, .people td:not(:first-child, :last-child))::before { content: attr(data-name); display: block; font-size: 12px;
    font-weight: 400; color: GrayText }
  .instances td.bad[data-name=State] { grid-column: 1 / -1 } .instances td.bad[data-name=State]::before { content: none }
  .bar label { flex: 1 1 100%; margin-top: 8px } .bar label :is(input, select) { flex: 1 }
}
pre { overflow: auto; max-height: 60vh; border: 1px solid var(--line); border-radius: 6px; padding: 8px 12px; font-size: 13px }
#verdict { font-size: 17px; font-weight: 600 } .old :is(#verdict, #problems, #overview) { opacity: .65 }
#events { list-style: none; padding-left: 0 } .texts td:first-child { white-space: nowrap }
.messages td:last-child { white-space: pre-wrap }
#configuration-differences .texts td:first-child { white-space: normal }
ul, ol { padding-left: 20px; overflow-wrap: anywhere } #problems:empty, #versions:empty { display: none }
.names { columns: 240px; padding-left: 0; list-style: none }
dialog { border: 1px solid var(--line); border-radius: 8px; width: min(420px, calc(100vw - 32px)) } dialog h2 { margin-top: 0 }
dialog::backdrop { background: #0008 } dialog label { display: block } dialog input { width: 100% } dialog .buttons { justify-content: end }
.bad, #problems { color: var(--bad); font-weight: 600 } .good { color: var(--good) } .quiet td:not(.bad) { opacity: .6 }
`
