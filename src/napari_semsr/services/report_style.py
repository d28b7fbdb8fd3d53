"""The style sheet of reports: one column, readable on a phone, light and dark."""

__all__ = ["STYLE"]

STYLE = """\
:root {
  --ground: #fbfbfa; --card: #ffffff; --ink: #1d2126; --soft: #5b636e;
  --line: #dfe2e6; --mark: #eaf3ef; --accent: #14705a; --warn: #b3541e;
  --warned: #fbf0e6;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #15181c; --card: #1e2227; --ink: #e7e9ec; --soft: #a2abb6;
    --line: #343a42; --mark: #1d332c; --accent: #6fcfb1; --warn: #e89a5d;
    --warned: #33261a;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans",
    sans-serif;
}
main { max-width: 68rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: clamp(1.5rem, 4vw, 2.1rem); line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-top: .75rem;
  border-top: 1px solid var(--line); }
.part > h2 { font-size: clamp(1.35rem, 3vw, 1.7rem); margin-top: 3.5rem;
  padding-top: 1rem; border-top: 3px solid var(--accent); }
h3 { font-size: 1.12rem; margin: 2.2rem 0 .6rem; padding-top: .6rem;
  border-top: 1px solid var(--line); }
.part > .lede + section h3 { border-top: 0; margin-top: 1rem; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .4rem 1.4rem;
  margin: .8rem 0 0; padding: 0; }
a { color: var(--accent); }
p.warning { background: var(--warned); border-left: 4px solid var(--warn);
  border-radius: 4px; padding: .6rem .9rem; }
p { max-width: 46rem; margin: .6rem 0; }
.lede { font-size: 1.08rem; color: var(--soft); }
figure { margin: 0; }
section > figure { margin: 1rem 0; }
img { display: block; width: 100%; height: auto; background: #fff;
  border: 1px solid var(--line); border-radius: 6px; }
section > figure img { max-width: 52rem; }
figcaption { font-size: .88rem; color: var(--soft); margin: .4rem 0 .2rem;
  max-width: 46rem; }
.gallery { display: grid; gap: 1rem; margin: 1rem 0;
  grid-template-columns: repeat(2, minmax(0, 1fr)); }
@media (min-width: 48rem) {
  .columns-3 { grid-template-columns: repeat(3, minmax(0, 1fr)); }
  .columns-4 { grid-template-columns: repeat(4, minmax(0, 1fr)); }
}
@media (max-width: 34rem) {
  .columns-1, .columns-2, .columns-3 { grid-template-columns: minmax(0, 1fr); }
}
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums;
  font-size: .95rem; background: var(--card); }
caption { text-align: left; color: var(--soft); font-size: .88rem;
  padding: 0 0 .4rem; }
th, td { padding: .42rem .8rem; border-bottom: 1px solid var(--line);
  text-align: right; white-space: nowrap; }
thead th { border-bottom: 2px solid var(--line); font-weight: 600;
  color: var(--soft); vertical-align: bottom; }
th:first-child { text-align: left; }
tbody th { font-weight: 500; }
tr.marked th, tr.marked td { background: var(--mark); font-weight: 650; }
dl { margin: 1rem 0; }
dd { margin: 0; overflow-wrap: anywhere; }
dt { color: var(--soft); font-size: .88rem; }
.facts > div { display: grid; grid-template-columns: minmax(8rem, 14rem) 1fr;
  gap: .2rem 1rem; padding: .3rem 0; border-bottom: 1px solid var(--line); }
.headline { display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); }
.headline > div { background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: .75rem .9rem; }
.headline dd { font-size: 1.3rem; font-weight: 650; color: var(--accent);
  font-variant-numeric: tabular-nums; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px;
  padding: .7rem .9rem; overflow-x: auto; font-size: .9rem; }
footer { margin-top: 2.5rem; color: var(--soft); font-size: .85rem; }
@media print { body { background: #fff; color: #000; } h2 { break-after: avoid; } }
"""
