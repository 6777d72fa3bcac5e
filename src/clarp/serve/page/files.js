// Files that come and go: .npy, and downloads.

/** The bytes of a text in base64. */
export const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

/** The numbers of an .npy file of little-endian float32, row by row. */
export function numbers(file) {
  const view = new DataView(file.buffer);
  const start = file[6] === 1 ? 10 + view.getUint16(8, true) : 12 + view.getUint32(8, true);
  return new Float32Array(file.buffer.slice(start));
}

export function download(content, name, type) {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

export const slug = (label) =>
  (label.toLowerCase().match(/[\p{L}\p{N}_]+/gu) ?? ["class"]).join("-").slice(0, 40);
