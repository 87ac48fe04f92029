// The try-it page: reads the OpenAPI document it belongs to, shows its operations and sends requests.
// Text from the document is only ever set as text. Credentials stay in this page's memory.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete", "head"];
const base = location.pathname.replace(/\/ui\/?$/, "") || "/";
const credentials = new Map();
let api = null;

function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "class") made.className = value;
    else if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function resolve(value) {
  for (let step = 0; value && value.$ref && step < 20; step += 1) {
    const parts = value.$ref.replace(/^#\//, "").split("/");
    value = parts.reduce((at, part) => at?.[part.replace(/~1/g, "/").replace(/~0/g, "~")], api);
  }
  return value || {};
}

function kindOf(schema) {
  const full = resolve(schema);
  if (full.enum) return full.enum.map((value) => JSON.stringify(value)).join(" | ");
  const choices = full.anyOf || full.oneOf;
  if (choices) return choices.map(kindOf).join(" or ");
  const kind = [].concat(full.type || "any").join(" or ");
  if (kind === "array") return `list of ${kindOf(full.items || {})}`;
  return full.format ? `${kind} (${full.format})` : kind;
}

function example(schema, depth = 0) {
  const full = resolve(schema);
  if (full.example !== undefined) return full.example;
  if (Array.isArray(full.examples) && full.examples.length) return full.examples[0];
  if (full.default !== undefined) return full.default;
  if (full.const !== undefined) return full.const;
  if (full.enum) return full.enum[0];
  const choices = full.anyOf || full.oneOf;
  if (choices) return example(choices[0], depth);
  if (depth > 6) return null;
  switch ([].concat(full.type)[0]) {
    case "object": {
      const made = {};
      for (const [name, property] of Object.entries(full.properties || {})) made[name] = example(property, depth + 1);
      return made;
    }
    case "array": return [example(full.items || {}, depth + 1)];
    case "integer": return full.minimum ?? 0;
    case "number": return full.minimum ?? 0;
    case "boolean": return false;
    case "null": return null;
    case "string":
      return { date: "2025-01-31", "date-time": "2025-01-31T12:00:00Z", time: "12:00:00Z",
        uuid: "00000000-0000-4000-8000-000000000000" }[full.format] ?? "text";
    default: return full.properties ? example({ ...full, type: "object" }, depth) : null;
  }
}

function operations() {
  const found = [];
  for (const [path, item] of Object.entries(api.paths || {})) {
    for (const method of METHODS) {
      if (item[method]) found.push({ path, method, ...item[method] });
    }
  }
  return found;
}

function listOperations() {
  const words = document.getElementById("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const list = document.getElementById("operations");
  const current = decodeURIComponent(location.hash.slice(1));
  const groups = new Map();
  for (const operation of operations()) {
    const text = `${operation.method} ${operation.path} ${operation.summary || ""} ${operation.tags || ""}`.toLowerCase();
    if (!words.every((word) => text.includes(word))) continue;
    const tag = operation.tags?.[0] || "other";
    if (!groups.has(tag)) groups.set(tag, []);
    groups.get(tag).push(operation);
  }
  list.replaceChildren();
  for (const tag of [...groups.keys()].sort()) {
    const items = groups.get(tag).map((operation) => {
      const button = element("button", { type: "button" },
        element("span", { class: `method ${operation.method}` }, operation.method.toUpperCase()),
        element("span", { class: "path" }, operation.path),
        element("span", { class: "about" }, operation.summary || ""));
      button.setAttribute("aria-current", String(operation.operationId === current));
      button.addEventListener("click", () => { location.hash = encodeURIComponent(operation.operationId); });
      return element("li", {}, button);
    });
    list.append(element("h2", {}, tag), element("ul", {}, ...items));
  }
  document.getElementById("none").hidden = groups.size > 0;
}

function field(id, label, kind, control, description) {
  control.id = id;
  const name = element("label", { htmlFor: id }, label, " ", element("span", { class: "kind" }, kind));
  const note = description ? element("small", { id: `${id}-note` }, description) : null;
  if (note) control.setAttribute("aria-describedby", note.id);
  return element("div", { class: "field" }, name, control, note);
}

function parameterFields(operation) {
  return (operation.parameters || []).map((source, index) => {
    const parameter = resolve(source);
    const control = element("input", { type: "text", autocomplete: "off", spellcheck: false, required: !!parameter.required });
    const fallback = resolve(parameter.schema || {}).default;
    if (fallback !== undefined && fallback !== null) control.placeholder = String(fallback);
    const kind = `${kindOf(parameter.schema || {})}, ${parameter.in}${parameter.required ? ", required" : ""}`;
    const note = parameter.description || resolve(parameter.schema || {}).description;
    return { parameter, control, row: field(`parameter-${index}`, parameter.name, kind, control, note) };
  });
}

function securityFields(operation) {
  const names = (operation.security || []).flatMap((need) => Object.keys(need));
  return names.map((name, index) => {
    const scheme = api.components?.securitySchemes?.[name] || {};
    const kept = credentials.get(name) || {};
    const rows = [];
    const read = {};
    const add = (key, label, type) => {
      const control = element("input", { type, autocomplete: "off", value: kept[key] || "" });
      control.addEventListener("input", () => credentials.set(name, { ...credentials.get(name), [key]: control.value }));
      read[key] = () => control.value;
      rows.push(field(`security-${index}-${key}`, label, name, control));
    };
    if (scheme.type === "http") {
      add("user", "User name", "text");
      add("password", "Password", "password");
    } else {
      add("key", scheme.name || "Key", "password");
    }
    return { scheme, read, rows };
  });
}

function bodyFields(operation) {
  const content = resolve(operation.requestBody || {}).content;
  if (!content) return null;
  const media = element("select");
  for (const name of Object.keys(content).filter((name) => name !== "multipart/form-data")) {
    media.append(element("option", { value: name }, name));
  }
  const text = element("textarea", { spellcheck: false });
  const fill = () => {
    const schema = content[media.value]?.schema;
    const value = schema ? example(schema) : null;
    if (media.value.endsWith("json")) text.value = schema ? JSON.stringify(value, null, 2) : "";
    else if (media.value.endsWith("xml")) text.value = schema ? asXml(value) : "";
    else if (media.value.endsWith("urlencoded")) text.value = new URLSearchParams(flat(value)).toString();
    else text.value = "";
  };
  media.addEventListener("change", fill);
  fill();
  return { media, text, rows: [field("media", "Media type", "", media), field("body", "Body", "", text)] };
}

function flat(value) {
  return Object.entries(value || {}).filter(([, member]) => member !== null && typeof member !== "object");
}

function asXml(value, name = "request", indent = "") {
  const escape = (text) => String(text).replace(/[<>&]/g, (c) => ({ "<": "&lt;", ">": "&gt;", "&": "&amp;" })[c]);
  if (Array.isArray(value)) return value.map((item) => asXml(item, name, indent)).join("\n");
  if (value === null || typeof value !== "object") return `${indent}<${name}>${escape(value ?? "")}</${name}>`;
  const inner = Object.entries(value).map(([key, member]) => asXml(member, key, `${indent}  `)).join("\n");
  return `${indent}<${name}>\n${inner}\n${indent}</${name}>`;
}

function request(operation, parameters, securities, body) {
  const url = new URL(location.origin);
  const query = new URLSearchParams();
  const headers = {};
  let path = operation.path;
  for (const { parameter, control } of parameters) {
    if (parameter.in === "path") {
      const keepSlashes = (resolve(parameter.schema).description || "").includes("slashes");
      const encoded = encodeURIComponent(control.value);
      path = path.replace(`{${parameter.name}}`, keepSlashes ? encoded.replace(/%2F/g, "/") : encoded);
    } else if (control.value !== "") {
      query.append(parameter.name, control.value);
    }
  }
  for (const { scheme, read } of securities) {
    if (scheme.type === "http") {
      const bytes = new TextEncoder().encode(`${read.user()}:${read.password()}`);
      headers.Authorization = `Basic ${btoa(String.fromCharCode(...bytes))}`;
    } else if (scheme.in === "query") {
      query.append(scheme.name, read.key());
    } else {
      headers[scheme.name] = read.key();
    }
  }
  if (body) headers["Content-Type"] = body.media.value;
  const search = query.toString();
  return {
    address: url.origin + path + (search ? `?${search}` : ""),
    options: { method: operation.method.toUpperCase(), headers, body: body ? body.text.value : undefined,
      credentials: "omit", redirect: "manual", cache: "no-store" },
  };
}

function curl({ address, options }) {
  const quote = (text) => `'${String(text).replace(/'/g, "'\\''")}'`;
  const parts = ["curl", "-i", "-X", options.method];
  for (const [name, value] of Object.entries(options.headers)) {
    // A shown command ends up in histories and tickets; secrets do not belong there.
    const secret = name !== "Content-Type";
    parts.push("-H", quote(`${name}: ${secret ? "…" : value}`));
  }
  if (options.body !== undefined) parts.push("--data-binary", quote(options.body));
  return [...parts, quote(address)].join(" ");
}

async function send(prepared, button, output) {
  button.disabled = true;
  output.replaceChildren(element("p", {}, "Waiting for the answer…"));
  const began = performance.now();
  try {
    const response = await fetch(prepared.address, prepared.options);
    const text = await response.text();
    showResponse(output, response, text, performance.now() - began);
  } catch (error) {
    output.replaceChildren(element("p", { class: "status bad" }, `No answer: ${error.message}`));
  } finally {
    button.disabled = false;
  }
}

function showResponse(output, response, text, milliseconds) {
  let shown = text;
  if ((response.headers.get("content-type") || "").includes("json")) {
    try { shown = JSON.stringify(JSON.parse(text), null, 2); } catch { /* Shown as it came. */ }
  }
  const headers = [...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
  output.replaceChildren(
    element("p", { class: `status ${response.ok ? "good" : "bad"}` },
      `${response.status} ${response.statusText}`, element("span", { class: "kind" }, ` in ${milliseconds.toFixed(1)} ms`)),
    element("pre", { tabIndex: 0 }, shown || "(no body)"),
    element("details", {}, element("summary", {}, "Response headers"), element("pre", { tabIndex: 0 }, headers)));
}

function responseTable(operation) {
  const rows = Object.entries(operation.responses || {}).map(([status, source]) => {
    const response = resolve(source);
    const content = Object.entries(response.content || {})[0];
    const shape = content?.[1].schema
      ? element("details", {}, element("summary", {}, content[0]),
          element("pre", { tabIndex: 0 }, JSON.stringify(example(content[1].schema), null, 2)))
      : "";
    return element("tr", {}, element("th", { scope: "row" }, status), element("td", {}, response.description || "", shape));
  });
  return element("table", {}, element("tbody", {}, ...rows));
}

function group(title, rows) {
  return rows.length ? element("fieldset", {}, element("legend", {}, title), ...rows) : null;
}

function showOperation() {
  const wanted = decodeURIComponent(location.hash.slice(1));
  const operation = operations().find((known) => known.operationId === wanted);
  listOperations();
  if (!operation) return;
  const parameters = parameterFields(operation);
  const securities = securityFields(operation);
  const body = bodyFields(operation);
  const output = element("section", { "aria-live": "polite", "aria-label": "Answer" });
  const button = element("button", { type: "submit", class: "send" }, "Send");
  const copy = element("button", { type: "button" }, "Show as curl");
  const form = element("form", {},
    group("Credentials", securities.flatMap((security) => security.rows)),
    group("Parameters", parameters.map((parameter) => parameter.row)),
    body ? group("Request body", body.rows) : null,
    element("div", { class: "actions" }, button, copy));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(request(operation, parameters, securities, body), button, output);
  });
  copy.addEventListener("click", () => {
    output.replaceChildren(element("pre", { tabIndex: 0 }, curl(request(operation, parameters, securities, body))));
  });
  const main = document.getElementById("operation");
  main.replaceChildren(
    element("h2", {}, operation.summary || operation.operationId),
    element("p", { class: "address" },
      element("span", { class: `method ${operation.method}` }, operation.method.toUpperCase()), ` ${operation.path}`),
    operation.description ? element("p", { class: "description" }, operation.description) : "",
    form, output, element("h3", {}, "Answers"), responseTable(operation));
  document.title = `${operation.method.toUpperCase()} ${operation.path}`;
  main.focus();
}

async function start() {
  const link = document.getElementById("document");
  const subtitle = document.getElementById("subtitle");
  link.href = base;
  try {
    const response = await fetch(base, { credentials: "omit", headers: { Accept: "application/json" } });
    if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
    api = await response.json();
  } catch (error) {
    subtitle.textContent = `The document could not be read: ${error.message}`;
    return;
  }
  document.getElementById("title").textContent = api.info.title;
  for (const other of api["x-openrpc"] || []) {
    // A path with parameters leads nowhere until they are filled in.
    const text = `${other.url} (JSON-RPC)`;
    link.after(other.url.includes("{") ? element("span", {}, text) : element("a", { href: other.url }, text));
  }
  const count = operations().length;
  subtitle.textContent = `revision ${api.info.version}, ${count} ${count === 1 ? "operation" : "operations"}`;
  document.getElementById("filter").addEventListener("input", listOperations);
  window.addEventListener("hashchange", showOperation);
  showOperation();
}

start();
