/**
 * A picture of the explorer, for notebooks that are opened without a kernel: the element is copied into an SVG with its style sheet
 * and drawn on a canvas. No server, no other program.
 */

/** Every rule of the explorer that applies here, from the document or the shadow root. */
function stylesOf(node) {
  const root = node.getRootNode();
  const sheets = [...root.styleSheets ?? [], ...root.adoptedStyleSheets ?? [], ...document.styleSheets];
  const rules = [];
  for (const sheet of new Set(sheets)) {
    try { for (const rule of sheet.cssRules) if (/\.pd|plotly/.test(rule.cssText)) rules.push(rule.cssText); } catch (error) {
      // A sheet from another origin cannot be read; ours never is one.
      if (error.name !== "SecurityError") throw error;
    }
  }
  return rules.join("\n");
}

/** A copy in which what people typed and chose is written into the attributes. */
function frozen(host) {
  const copy = /** @type {HTMLElement} */ (host.cloneNode(true));
  const fields = host.querySelectorAll("input, select");
  copy.querySelectorAll("input, select").forEach((field, i) => {
    const live = /** @type {HTMLInputElement} */ (fields[i]);
    field.setAttribute("value", live.value);
    if (field instanceof HTMLSelectElement) [...field.options].forEach((option) => option.toggleAttribute("selected", option.value === live.value));
  });
  return copy;
}

/**
 * @param {HTMLElement} host @param {number} [scale] pixels per CSS pixel
 * @returns {Promise<string>} PNG, base64
 */
export async function snapshot(host, scale = 1.5) {
  const { width, height } = host.getBoundingClientRect();
  if (!width || !height) throw new Error("the explorer is not visible");
  const copy = frozen(host);
  copy.style.width = `${width}px`;
  const style = document.createElement("style");
  style.textContent = stylesOf(host);
  copy.prepend(style);
  copy.setAttribute("xmlns", "http://www.w3.org/1999/xhtml");
  const markup = new XMLSerializer().serializeToString(copy);
  const picture = `<svg xmlns="http://www.w3.org/2000/svg" width="${width * scale}" height="${height * scale}" viewBox="0 0 ${width} ${height}"><foreignObject width="100%" height="100%">${markup}</foreignObject></svg>`;
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(picture)}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  canvas.getContext("2d").drawImage(image, 0, 0);
  return canvas.toDataURL("image/png").split(",")[1];
}
