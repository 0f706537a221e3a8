/* The webcam, where the browser allows it: one picture at a click, several while held. */

import { element } from "./dom.js";
import { guard } from "./notices.js";
import { frame } from "./pictures.js";

const BETWEEN = 250;

/* `taken` receives each picture; a camera that is `live` is asked about as it is, all the time. */
export function camera({ taken, changed, live }) {
  const button = element("button", { type: "button", textContent: "Webcam" });
  const video = element("video", { muted: true, playsInline: true, autoplay: true });
  video.setAttribute("aria-label", "What the webcam sees");
  const shutter = element("button", { type: "button", className: "main",
    textContent: live ? "Keep this one" : "Capture (hold for many)" });
  const node = element("div", { className: "camera", hidden: true }, video, shutter);
  let stream = null, timer = 0, wanted = false;
  button.hidden = !navigator.mediaDevices?.getUserMedia;  // no secure context, so no camera
  button.setAttribute("aria-pressed", "false");
  const seeing = () => stream && video.videoWidth > 0;
  const capture = () => { if (seeing()) taken(frame(video)); };
  const release = () => { if (!live) { clearInterval(timer); timer = 0; } };

  function stop() {
    clearInterval(timer);
    stream?.getTracks().forEach(track => track.stop());
    stream = null; timer = 0; wanted = false;
    node.hidden = true;
    button.setAttribute("aria-pressed", "false");
  }
  button.onclick = guard(async () => {
    if (stream) { stop(); changed(); return; }
    wanted = true;
    let given;
    try {
      given = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 } });
    } catch {
      throw new Error("The browser gives no webcam: there is none, it is in use, or not allowed.");
    }
    if (!wanted || stream) {  // someone has left, or clicked twice, before the browser allowed it
      given.getTracks().forEach(track => track.stop());
      return;
    }
    video.srcObject = stream = given;
    node.hidden = false;
    button.setAttribute("aria-pressed", "true");
    if (live) timer = setInterval(changed, BETWEEN);
  });
  shutter.onclick = e => {
    if (live) { capture(); stop(); changed(); }
    else if (!e.detail) capture();  // by keyboard: a pointer has captured already
  };
  shutter.onpointerdown = () => {
    if (live) return;
    capture();
    timer = setInterval(capture, BETWEEN);
  };
  shutter.onpointerup = shutter.onpointerleave = shutter.onpointercancel = release;
  return { button, node, stop, item: () => live && seeing() ? { image: frame(video) } : null };
}
