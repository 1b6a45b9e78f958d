// The words of the page, in English and Chinese.
//
//   t("seconds", { n: 3 })         the text of a key, with {n} filled in
//   <b data-t="talk">Talk</b>      text, kept in the chosen language by `translate`
//   data-t-label, -placeholder, -title, -alt      the same for attributes
//   onLanguage(() => refresh())    for texts that a script has made

const TABLE = {
  // state line
  connecting: ["Connecting…", "正在连接…"],
  starting: ["The server is loading its models…", "服务器正在加载模型…"],
  full: ["The server is full.", "服务器已满。"],
  gone: ["The connection is gone.", "连接已断开。"],
  ended: ["The server ended the session.", "服务器结束了会话。"],
  elsewhere: ["This conversation goes on in another window.", "对话已在另一个窗口中继续。"],
  goOnHere: ["Go on here", "在这里继续"],
  refused: ["The server wants a key.", "服务器需要密钥。"],
  ready: ["Ready", "就绪"],
  readyToPush: [
    "Ready: hold Talk or the space bar",
    "就绪：按住“说话”或空格键",
  ],
  listening: ["Listening…", "正在听…"],
  muted: ["Muted: you are not heard.", "已静音：听不到你说话。"],
  hearing: ["Hearing you…", "听到你了…"],
  thinking: ["Thinking…", "正在思考…"],
  speaking: ["Speaking…", "正在说…"],
  again: ["Trying again in {n} s.", "{n} 秒后重试。"],
  lost: ["The connection was lost: {reason}", "连接中断：{reason}"],
  resumed: [
    "The connection was lost for a moment; the conversation goes on.",
    "连接曾短暂中断；对话继续。",
  ],
  forgotten: [
    "A new session begins here; what was said above is forgotten.",
    "这里开始新的会话；以上内容已被遗忘。",
  ],
  wrongKey: ["The server does not know this key.", "服务器不认识这个密钥。"],
  key: ["API key", "API 密钥"],
  keyLabel: ["API key of the server", "服务器的 API 密钥"],
  connect: ["Connect", "连接"],

  // talking
  talk: ["Talk", "说话"],
  stopTalking: ["Stop talking", "结束通话"],
  holdToTalk: ["Hold to talk", "按住说话"],
  releaseToSend: ["Release to send", "松开发送"],
  mute: ["Mute", "静音"],
  unmute: ["Unmute", "取消静音"],
  stopAnswer: ["Stop answer", "停止回答"],
  loudness: ["Loudness of the microphone", "麦克风音量"],
  microphone: ["Microphone", "麦克风"],
  speaker: ["Speaker", "扬声器"],
  defaultDevice: ["System default", "系统默认"],
  unplugged: ["The microphone was unplugged.", "麦克风已被拔出。"],
  microphoneWord: ["microphone", "麦克风"],
  cameraWord: ["camera", "摄像头"],
  screenWord: ["screen", "屏幕"],
  deviceRefused: [
    "The browser refused the {what}. Allow it for this page (the icon beside the address) and try again.",
    "浏览器拒绝了{what}。请在地址栏旁的图标中允许本页使用，然后重试。",
  ],
  deviceMissing: ["No {what} was found. Plug one in and try again.", "没有找到{what}。请接好后重试。"],
  deviceBusy: [
    "The {what} cannot be opened; another program may be using it.",
    "无法打开{what}；可能有其他程序正在使用。",
  ],
  deviceFailed: ["The {what} failed: {reason}", "{what}出错：{reason}"],
  insecure: [
    "Browsers give the {what} only to secure pages. Start the server with its certificate (omni demo --ssl, or omni serve --ui --ssl), open this page over https and accept the browser's one warning; or open it on the server's own machine at http://localhost:{port} (an SSH tunnel does). Typing works here.",
    "浏览器只允许安全页面使用{what}。请用 omni demo --ssl（或 omni serve --ui --ssl）启动服务器，以 https 打开本页，并接受浏览器的一次警告；或在服务器本机打开 http://localhost:{port}（也可用 SSH 隧道）。这里仍可打字。",
  ],

  // showing and typing
  camera: ["Camera", "摄像头"],
  cameraSees: ["What the camera sees", "摄像头画面"],
  screen: ["Share screen", "共享屏幕"],
  screenSees: ["What your screen shows", "屏幕画面"],
  switchCamera: ["Other camera", "切换摄像头"],
  addFile: ["Add a picture, video or sound", "添加图片、视频或声音"],
  picture: ["+ Picture", "+ 图片"],
  attached: ["The picture that goes with your next question", "将随下一个问题发送的图片"],
  removePicture: ["Remove the picture", "移除图片"],
  attachments: ["Goes with your next question", "将随下一个问题发送"],
  removeAttachment: ["Remove {name}", "移除{name}"],
  notAPicture: [
    "{name} is not a picture that the browser can read.",
    "{name} 不是浏览器能读取的图片。",
  ],
  notASound: ["{name} is not a sound that the browser can read.", "{name} 不是浏览器能读取的声音。"],
  notAVideo: ["{name} is not a video that the browser can read.", "{name} 不是浏览器能读取的视频。"],
  tooLong: ["{name} is longer than {n} s.", "{name} 超过 {n} 秒。"],
  tooMuch: [
    "{name} is too much for one message; send what is attached first.",
    "{name} 超出了一条消息的容量；请先发送已添加的内容。",
  ],
  thisFile: ["This", "该文件"],
  onlyMedia: ["Only pictures, videos and sounds can be dropped here.", "这里只能放图片、视频和声音。"],
  type: ["Type a question", "输入问题"],
  send: ["Send", "发送"],
  aloud: ["Speak answers", "朗读回答"],
  emptyTitle: ["What is on your mind?", "想聊点什么？"],
  empty: [
    "Press Talk and ask something, or type below. You can add a picture or show the camera.",
    "点“说话”提问，或在下面输入。也可以添加图片或打开摄像头。",
  ],
  emptyPush: [
    "Hold Talk or the space bar and ask something, or type below. You can add a picture or show the camera.",
    "按住“说话”或空格键提问，或在下面输入。也可以添加图片或打开摄像头。",
  ],
  answerFailed: ["The answer failed; ask again.", "回答失败，请再问一次。"],

  // the transcript
  conversation: ["Conversation", "对话"],
  you: ["You", "你"],
  omni: ["Omni", "Omni"],
  pictureShown: ["The picture you showed", "你展示的图片"],
  pictureMade: ["A picture in the answer", "回答中的图片"],
  pictureForming: ["The picture so far", "生成中的图片"],
  pictureAsked: ["Picture: {prompt}", "图片：{prompt}"],
  pictureFailed: ["The picture could not be made.", "图片未能生成。"],
  sound: ["Sound file", "声音文件"],
  tool: ["Tool {name}", "工具 {name}"],
  toolRunning: ["running…", "运行中…"],
  toolDone: ["done", "完成"],
  toolArguments: ["Arguments", "参数"],
  toolOutput: ["Output", "输出"],
  interrupted: ["interrupted", "被打断"],
  brokenOff: ["broken off", "中断"],
  notUnderstood: ["(not understood)", "（没听清）"],
  copy: ["Copy", "复制"],
  copyMessage: ["Copy this message", "复制这条消息"],
  copied: ["Copied", "已复制"],
  copyFailed: ["The browser does not let this page copy.", "浏览器不允许本页复制。"],
  toLatest: ["To the latest", "回到最新"],

  // the waterfall
  answeredAfter: ["answered after {time}", "{time} 后回答"],
  seconds: ["{n} s", "{n} 秒"],
  waterfall: ["Where the time went, from the end of your question", "从你说完起，时间用在哪里"],
  stage_silence: ["pause noticed", "察觉停顿"],
  stage_turn_end: ["turn over", "判定说完"],
  stage_transcript: ["understood", "听懂"],
  stage_first_token: ["first word", "第一个词"],
  stage_first_clause: ["first clause", "第一个短句"],
  stage_first_audio: ["first sound", "第一个声音"],
  stage_heard: ["heard here", "这里听到"],
  onServer: ["server", "服务器"],
  onPage: ["this page", "本页"],

  // menu, history and downloads
  close: ["Close", "关闭"],
  history: ["Conversations", "历史对话"],
  newConversation: ["New conversation", "新对话"],
  noHistory: ["No earlier conversations yet.", "还没有历史对话。"],
  keepsNothing: [
    "This server keeps no conversations: what is said here is gone with the page. To keep them, start it without --keep nothing.",
    "此服务器不保存对话：关闭页面后内容即消失。若要保存，启动时不要加 --keep nothing。",
  ],
  historyFailed: ["The conversations cannot be listed: {reason}", "无法列出对话：{reason}"],
  untitled: ["Untitled", "无标题"],
  deleteSession: ["Delete “{title}”", "删除“{title}”"],
  deleteSure: ["Delete for good?", "永久删除？"],
  delete: ["Delete", "删除"],
  cancel: ["Cancel", "取消"],
  current: ["open now", "当前"],
  more: ["Show more", "显示更多"],
  export: ["Copy or save", "复制或保存"],
  exportHint: ["What was said here, to take along.", "把这里的对话带走。"],
  copyAll: ["Copy all", "全部复制"],
  asJson: ["Save as JSON", "存为 JSON"],
  asMarkdown: ["Save as Markdown", "存为 Markdown"],
  asWav: ["Save the sound (WAV)", "保存声音（WAV）"],
  nothingToSave: ["Nothing was said yet.", "还没有内容。"],
  noSound: ["There is no sound in this conversation.", "这段对话没有声音。"],
  saved: ["Saved {name}", "已保存 {name}"],

  // settings
  settings: ["Settings", "设置"],
  model: ["Model", "模型"],
  instructions: ["Instructions", "指令"],
  instructionsHint: ["How Omni should answer", "Omni 应当怎样回答"],
  voice: ["Voice", "声音"],
  voiceFixed: [
    "The voice stays as it is in this conversation; it changes with the next one.",
    "这段对话的声音不变；下一段对话起生效。",
  ],
  automatic: ["Automatic", "自动"],
  speed: ["Speed of speech", "语速"],
  turns: ["Taking turns", "轮流说话"],
  turns_low: ["Hands-free, patient", "免提，耐心等待"],
  turns_medium: ["Hands-free", "免提"],
  turns_high: ["Hands-free, eager", "免提，快速接话"],
  turns_silence: ["After a silence", "静默后"],
  turns_push: ["Push to talk", "按住说话"],
  silence: ["Length of the silence", "静默时长"],
  milliseconds: ["{n} ms", "{n} 毫秒"],
  spoken: ["Your language", "你的语言"],
  detect: ["Detect", "自动识别"],
  noise: ["Noise reduction", "降噪"],
  noise_none: ["Off", "关闭"],
  noise_near_field: ["Headset", "耳机"],
  noise_far_field: ["Laptop or room", "笔记本或房间"],
  temperature: ["Temperature", "温度"],
  interface: ["Page", "界面"],
  theme: ["Theme", "主题"],
  theme_system: ["As the system", "跟随系统"],
  theme_light: ["Light", "浅色"],
  theme_dark: ["Dark", "深色"],
  pageLanguage: ["Language of the page", "界面语言"],
  reset: ["Reset all", "全部重置"],
  devices: ["Devices", "设备"],
};

export const LANGUAGES = { en: "English", zh: "中文" };
const CODES = Object.keys(LANGUAGES);
const STORED = "omni-language";
const ATTRIBUTES = { label: "aria-label", placeholder: "placeholder", title: "title", alt: "alt" };
const listeners = new Set();

function preferred() {
  const stored = localStorage.getItem(STORED);
  if (CODES.includes(stored)) return stored;
  return navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
}

let current = preferred();

/** The language of the page: "en" or "zh". */
export const language = () => current;

/** The text of `key` with its {values}; an unknown key throws. */
export function t(key, values = {}) {
  const texts = TABLE[key];
  if (!texts) throw new Error(`the page has no text ${key}`);
  return texts[CODES.indexOf(current)].replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/** Put the texts of `data-t…` attributes in and below `root`. */
export function translate(root) {
  for (const element of [root, ...root.querySelectorAll("*")]) {
    if (element.dataset.t) element.textContent = t(element.dataset.t);
    for (const [name, attribute] of Object.entries(ATTRIBUTES)) {
      const key = element.getAttribute(`data-t-${name}`);
      if (key) element.setAttribute(attribute, t(key));
    }
  }
}

/** Call `listener` after each change of the language; gives the function that ends it. */
export function onLanguage(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function setLanguage(code) {
  current = CODES.includes(code) ? code : "en";
  localStorage.setItem(STORED, current);
  document.documentElement.lang = current === "zh" ? "zh-Hans" : "en";
  for (const listener of listeners) listener(current);
}

document.documentElement.lang = current === "zh" ? "zh-Hans" : "en";
