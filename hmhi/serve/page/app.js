import { Painter } from "/page/painter.js";
import { Player, VIEWS } from "/page/player.js";

const element = (id) => document.getElementById(id);
const POLL = 500; // milliseconds
const LABELS = {
  "masks.zip": "Masks (zip of PNG)", "overlay.mp4": "Overlay (MP4)", "coco.json": "COCO codes (JSON)",
  "alpha.webm": "Transparent video (WebM)",
};

let settings = null; // of the server
let painter = null; // where the server follows painted objects
let player = null;
let job = null; // as the server described it last
let following = true; // the newest frame is shown while the job runs, until someone scrubs
let clock = null; // of playing
let upload = null; // XMLHttpRequest at work

// --- choosing ---------------------------------------------------------------------------------------------------

async function start() {
  settings = await ask("/settings");
  element("network").append(new Option(settings.network === "bundled" ? "bundled network" : settings.network));
  element("size").append(new Option("as trained", ""));
  for (const size of settings.sizes) element("size").append(new Option(`${size} x ${size}`, size));
  element("alpha-option").hidden = !settings.alpha;
  const limits = settings.limits;
  element("limits").textContent =
    `MP4, MOV, WebM, MKV or AVI; up to ${Math.round(limits.upload_bytes / 1e6)} MB, ` +
    `${limits.frames} frames, ${(limits.pixels / 1e6).toFixed(1)} megapixels.`;
  settings.samples.forEach((name, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = `Sample ${index + 1}`;
    button.addEventListener("click", () => begin(() => ask(`/samples/${name}?${options()}`, { method: "POST" })));
    element("samples").append(button);
  });
  if (settings.objects) preparePainting();
  window.addEventListener("hashchange", openFromAddress);
  openFromAddress();
}

function options() {
  const query = new URLSearchParams();
  if (element("size").value) query.set("image_size", element("size").value);
  if (!element("refine").checked) query.set("refine", "false");
  if (element("alpha").checked) query.set("alpha", "true");
  return query;
}

async function begin(make) {
  showError(null);
  try {
    const made = await make();
    location.hash = made.id; // survives a reload
  } catch (error) {
    showStart();
    if (error.message) showError(error.message);
  }
}

function send(file) {
  begin(
    () =>
      new Promise((resolve, reject) => {
        const query = options();
        query.set("name", file.name);
        showJob({ name: file.name, state: "uploading", frames: 0, downloads: [] });
        upload = new XMLHttpRequest();
        upload.open("POST", `/jobs?${query}`);
        upload.responseType = "json";
        upload.upload.addEventListener("progress", (event) => {
          element("progress").value = event.lengthComputable ? event.loaded / event.total : 0;
          element("status").textContent = `Uploading: ${(event.loaded / 1e6).toFixed(1)} MB`;
        });
        upload.addEventListener("load", () => {
          const { status, response } = upload;
          upload = null;
          if (status === 201) resolve(response);
          else reject(new Error(response?.error ?? "The server refused the file."));
        });
        upload.addEventListener("error", () => reject(new Error("The upload failed; is the server still there?")));
        upload.addEventListener("abort", () => reject(new Error("")));
        upload.send(file);
      }),
  );
}

// --- one job ----------------------------------------------------------------------------------------------------

async function openFromAddress() {
  const id = location.hash.slice(1);
  stop();
  stopPainting();
  showError(null);
  job = null;
  player = null;
  if (!id) return showStart();
  following = true;
  element("player").hidden = true;
  while (location.hash.slice(1) === id) {
    try {
      const described = await ask(`/jobs/${encodeURIComponent(id)}`);
      if (location.hash.slice(1) !== id) return;
      showJob(described);
      if (described.state === "failed") showError(described.error);
      if (["done", "failed"].includes(described.state)) return;
    } catch (error) {
      if (location.hash.slice(1) !== id) return;
      if (error.status === 404) {
        history.replaceState(null, "", "/");
        showStart();
        return showError(error.message);
      }
      element("status").textContent = "The server does not answer; trying again.";
    }
    await new Promise((resume) => setTimeout(resume, POLL));
  }
}

function showStart() {
  element("start").hidden = false;
  element("job").hidden = true;
}

function showJob(described) {
  job = described;
  element("start").hidden = true;
  element("job").hidden = false;
  element("job-title").textContent = job.name;
  const ended = ["done", "failed"].includes(job.state);
  element("cancel").hidden = ended;
  element("another").hidden = !ended;
  element("status").textContent = describeState();
  const progress = element("progress");
  progress.hidden = job.state === "failed";
  if (job.state === "done") progress.value = 1;
  else if (job.total) progress.value = job.frames / job.total;
  else if (job.state !== "uploading") progress.removeAttribute("value");
  if (job.frames > 0 && job.state !== "failed") showFrames();
  element("downloads").hidden = job.downloads.length === 0;
  if (job.downloads.length && !element("links").children.length) listDownloads();
}

function describeState() {
  if (job.state === "queued") return `Waiting: place ${job.place} in the queue`;
  if (job.state === "failed") return "This video cannot be segmented.";
  if (job.state === "done") {
    const from = job.frame === null ? "" : `, objects followed from frame ${job.frame + 1} on`;
    return `Done: ${job.frames} frames, ${job.width} x ${job.height}${from}`;
  }
  if (job.state === "uploading") return "Uploading";
  if (!job.frames) return "Starting";
  const parts = [`Frame ${job.frames}${job.total ? ` of ${job.total}` : ""}`];
  if (job.speed) parts.push(`${job.speed.toFixed(1)} frames a second`);
  if (job.seconds_left != null) parts.push(`${Math.ceil(job.seconds_left)} s left`);
  return parts.join(", ");
}

function listDownloads() {
  for (const name of job.downloads) {
    const link = document.createElement("a");
    link.className = "button";
    link.href = `/jobs/${job.id}/${name}`;
    link.setAttribute("download", "");
    link.textContent = LABELS[name];
    const item = document.createElement("li");
    item.append(link);
    element("links").append(item);
  }
  element("kept").textContent = `Deleted on ${new Date(job.kept_until * 1000).toLocaleString()}.`;
}

// --- playing ----------------------------------------------------------------------------------------------------

function showFrames() {
  if (player === null) {
    const id = job.id;
    player = new Player(element("canvas"), (number) => `/jobs/${id}/view/${number}.jpg`);
    player.colours = job.frame === null ? null : settings.palette.slice(1);
    const flow = document.querySelector("input[name=view][value=flow]");
    flow.parentElement.hidden = job.frame !== null;
    if (job.frame !== null && flow.checked) chooseView("mask");
    player.view = document.querySelector("input[name=view]:checked").value;
    element("links").replaceChildren();
    element("player").hidden = false;
    element("follow").hidden = painter === null;
  }
  player.count = job.frames;
  element("scrub").max = job.frames - 1;
  if (following && clock === null) go(job.state === "done" ? 0 : job.frames - 1);
  if (job.state === "done") following = false;
  showPosition();
}

function go(number) {
  const shown = player; // another job may be opened meanwhile
  shown.show(number).then(() => element("canvas").setAttribute("data-frame", shown.drawn));
  element("scrub").value = number;
  showPosition();
}

function showPosition() {
  element("frame").textContent = `${player.position + 1} / ${player.count}`;
}

function play() {
  following = false;
  const rate = job.fps || 24;
  const first = player.position + 1 < player.count ? player.position : 0;
  const began = performance.now();
  element("play").textContent = "Pause";
  element("play").setAttribute("aria-pressed", "true");
  go(first);
  const tick = (now) => {
    const number = first + Math.floor(((now - began) / 1000) * rate);
    if (number >= player.count) return stop();
    if (number !== player.position) go(number);
    clock = requestAnimationFrame(tick);
  };
  clock = requestAnimationFrame(tick);
}

function stop() {
  if (clock !== null) cancelAnimationFrame(clock);
  clock = null;
  element("play").textContent = "Play";
  element("play").setAttribute("aria-pressed", "false");
}

function toggle() {
  if (clock === null) play();
  else stop();
}

function step(by) {
  stop();
  following = false;
  go(Math.min(Math.max(player.position + by, 0), player.count - 1));
}

function chooseView(view) {
  if (view === "flow" && job?.frame != null) return; // none was computed
  document.querySelector(`input[name=view][value="${view}"]`).checked = true;
  if (player === null) return;
  player.view = view;
  go(player.position);
}

// --- painting ---------------------------------------------------------------------------------------------------

function preparePainting() {
  painter = new Painter(element("painting"), settings.palette, cutBox);
  for (let id = 1; id <= settings.objects; id++) element("object").append(new Option(id));
  element("paint").addEventListener("click", () => (element("tools").hidden ? startPainting() : stopPainting()));
  for (const input of document.querySelectorAll("input[name=tool]")) {
    input.addEventListener("change", () => painter.choose(input.value));
  }
  element("brush-size").addEventListener("input", (event) => (painter.size = Number(event.target.value)));
  element("object").addEventListener("change", (event) => (painter.object = Number(event.target.value)));
  element("clear").addEventListener("click", () => painter.clear());
  element("send-mask").addEventListener("click", followMarked);
}

async function startPainting() {
  stop();
  following = false;
  chooseView("frame");
  await player.show(player.position); // gives the canvas its size
  painter.open(element("canvas").width, element("canvas").height);
  setPainting(true);
  element("painting").focus();
}

function stopPainting() {
  if (painter === null || element("tools").hidden) return;
  showError(null);
  setPainting(false);
}

function setPainting(on) {
  for (const id of ["painting", "tools"]) element(id).hidden = !on;
  for (const id of ["play", "scrub"]) element(id).disabled = on; // the mask belongs to this frame
  element("paint").textContent = on ? "Give up marking" : "Follow an object";
  element("paint").setAttribute("aria-expanded", String(on));
}

async function cutBox(part) {
  showError(null);
  const query = new URLSearchParams({
    frame: player.position,
    x: Math.round(part.x * job.width), y: Math.round(part.y * job.height),
    width: Math.round(part.width * job.width), height: Math.round(part.height * job.height),
  });
  try {
    const answer = await fetch(`/jobs/${job.id}/box?${query}`, { method: "POST" });
    if (!answer.ok) throw new Error((await answer.json()).error);
    return await createImageBitmap(await answer.blob());
  } catch (error) {
    showError(error.message);
    return null;
  }
}

async function followMarked() {
  if (painter.empty) return showError("The mask is empty: mark at least one object.");
  const query = new URLSearchParams({ frame: player.position });
  if (element("alpha").checked) query.set("alpha", "true");
  const { id, width, height } = job;
  element("send-mask").disabled = true;
  try {
    showError(null);
    const body = await painter.png(width, height);
    const made = await ask(`/jobs/${id}/objects?${query}`, { method: "POST", body });
    document.querySelector("input[name=view][value=mask]").checked = true;
    location.hash = made.id;
  } catch (error) {
    showError(error.message);
  } finally {
    element("send-mask").disabled = false;
  }
}

// --- wiring -----------------------------------------------------------------------------------------------------

async function ask(address, request = {}) {
  const answer = await fetch(address, request);
  const content = answer.status === 204 ? null : await answer.json().catch(() => null);
  if (answer.ok) return content;
  throw Object.assign(new Error(content?.error ?? "The server failed."), { status: answer.status });
}

function showError(text) {
  element("error").hidden = !text;
  element("error").textContent = text ? text[0].toUpperCase() + text.slice(1) : "";
}

for (const view of VIEWS) {
  const label = document.createElement("label");
  const input = Object.assign(document.createElement("input"), { type: "radio", name: "view", value: view });
  input.checked = view === "mask";
  input.addEventListener("change", () => chooseView(view));
  label.append(input, ` ${view[0].toUpperCase()}${view.slice(1)}`);
  element("views").append(label);
}

element("file").addEventListener("change", (event) => {
  if (event.target.files.length) send(event.target.files[0]);
  event.target.value = "";
});
element("play").addEventListener("click", toggle);
element("scrub").addEventListener("input", (event) => {
  stop();
  following = false;
  go(Number(event.target.value));
});
element("cancel").addEventListener("click", async () => {
  if (upload !== null) {
    upload.abort();
    upload = null;
    return showStart();
  }
  const id = job.id;
  history.replaceState(null, "", "/");
  showStart();
  await ask(`/jobs/${id}`, { method: "DELETE" }).catch((error) => showError(error.message));
});
element("another").addEventListener("click", (event) => {
  event.preventDefault();
  location.hash = "";
});

const drop = element("drop");
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) drop.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  const busy = element("start").hidden;
  if (!busy && event.dataTransfer.files.length) send(event.dataTransfer.files[0]);
});
document.addEventListener("keydown", (event) => {
  if (player === null || !element("tools").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  const own = event.target.matches("button, a, select, input[type=range], input[type=radio]");
  const view = VIEWS[Number(event.key) - 1];
  if (view) chooseView(view);
  else if (event.key === " " && !own) toggle();
  else if (event.key === "ArrowRight" && !own) step(1);
  else if (event.key === "ArrowLeft" && !own) step(-1);
  else return;
  event.preventDefault();
});

start().catch((error) => showError(error.message));
