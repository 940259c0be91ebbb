/* Makes session strings in the browser. The secret is made or read here, put into
   fields that belong to no form, and never sent: see SECURITY.md, and PROTOCOL.md for
   the form of the string. */
"use strict";

(() => {
  const root = document.querySelector("[data-strings]");
  if (root === null) return;
  const { scheme, version, secretBytes, room, url } = root.dataset;
  const PREFERRED = "worker-any"; /* no worker is there yet to be preferred */

  function encode64(bytes) {
    const text = btoa(String.fromCharCode(...bytes));
    return text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  }

  function decode64(text) {
    const plain = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    return Uint8Array.from(plain, (letter) => letter.charCodeAt(0));
  }

  /* CRC-32 of ISO-HDLC, as in zlib; it catches slips and protects from nobody. */
  function checksum(bytes) {
    let crc = 0xffffffff;
    for (const byte of bytes) {
      crc ^= byte;
      for (let bit = 0; bit < 8; bit++) {
        crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
      }
    }
    crc = ~crc >>> 0;
    return [crc >>> 24, (crc >>> 16) & 255, (crc >>> 8) & 255, crc & 255];
  }

  function make(token, secret, peer) {
    const fields = {
      v: Number(version),
      url: url || location.origin,
      room_id: room,
      token,
      peer_id: peer,
      secret: encode64(secret),
    };
    const body = new TextEncoder().encode(JSON.stringify(fields));
    return scheme + encode64([...body, ...checksum(body)]);
  }

  /* Returns the secret and the preferred worker of a string of this room, or says what
     is wrong with it. */
  function read(text) {
    const line = text.replace(/\s/g, "");
    if (!line.startsWith(scheme)) throw new Error(`It does not begin with ${scheme}`);
    let fields;
    try {
      const raw = decode64(line.slice(scheme.length));
      const body = raw.slice(0, -4);
      if (checksum(body).join() !== [...raw.slice(-4)].join()) throw new Error();
      fields = JSON.parse(new TextDecoder().decode(body));
    } catch {
      throw new Error("Part of it is missing or changed; copy it again.");
    }
    if (fields.room_id !== room) throw new Error("It is of another room.");
    const secret = decode64(fields.secret);
    if (secret.length !== Number(secretBytes)) throw new Error("Its secret is not whole.");
    return { secret, peer: fields.peer_id };
  }

  function show(secret, peer) {
    for (const part of root.querySelectorAll("[data-string]")) {
      const line = make(part.dataset.token, secret, peer);
      for (const field of part.querySelectorAll("input")) {
        field.value = field.id.endsWith("-command")
          ? `SLEAP_SESSION='${line}' sleap-remote worker`
          : line;
      }
      part.hidden = false;
    }
  }

  if ("new" in root.dataset) {
    show(crypto.getRandomValues(new Uint8Array(Number(secretBytes))), PREFERRED);
  }

  const known = root.querySelector("[data-known]");
  known?.addEventListener("input", () => {
    const said = root.querySelector("[data-known-said]");
    try {
      const { secret, peer } = read(known.value);
      show(secret, peer);
      said.textContent = "The new string is below. Nothing was sent.";
    } catch (error) {
      for (const part of root.querySelectorAll("[data-string]")) part.hidden = true;
      said.textContent = error.message;
    }
  });
})();
