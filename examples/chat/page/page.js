// The name is in the URL, as ?nick=Ada; without it the movie asks.
const settings = $settings;
const nick = new URLSearchParams(location.search).get("nick");
const query = nick ? `?${new URLSearchParams({nick})}` : "";
document.getElementById("granted").src = `/player.html${query}`;
document.getElementById("denied").src = `${settings.denied}/player.html?nick=Eve`;

async function showLog() {
  try {
    const lines = await (await fetch("/refused.json")).json();
    if (lines.length) document.getElementById("log").textContent = lines.join("\n");
  } catch (error) {
    // the demo has ended
  }
  setTimeout(showLog, 1000);
}
showLog();
