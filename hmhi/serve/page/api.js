// Lists what openapi.json describes.
const description = await (await fetch("/openapi.json")).json();
const list = document.getElementById("operations");
for (const [path, operations] of Object.entries(description.paths)) {
  for (const [method, operation] of Object.entries(operations)) {
    const term = document.createElement("dt");
    const parameters = (operation.parameters ?? []).filter((one) => one.in === "query").map((one) => one.name);
    term.textContent = `${method.toUpperCase()} ${path}${parameters.length ? `?${parameters.join("&")}` : ""}`;
    const text = document.createElement("dd");
    text.textContent = operation.description ?? operation.summary;
    list.append(term, text);
  }
}
