// Every word of the page, in English and Korean; elements name theirs in data-word or, for a hint, data-hint.

const WORDS = {
  en: {
    other: "한국어",
    skip: "Skip to the question",
    keyLabel: "This server asks for a key",
    keyUse: "Use this key",
    keyRefused: "The server does not take this key.",
    chat: "Chat",
    clear: "New conversation",
    question: "Question",
    hint: "Ask in Korean or English. Enter sends, Shift+Enter starts a new line.",
    empty: "Ask something: 대한민국의 수도는 어디인가요?",
    sampling: "Sampling",
    temperature: "Temperature",
    maxTokens: "Tokens at most",
    stop: "Stop",
    send: "Send",
    you: "You",
    answer: "Model",
    stopped: "stopped",
    ends: { length: "cut at the token limit", content_filter: "withheld by the safety check" },
    answered: "The answer is complete.",
    wasStopped: "The answer was stopped.",
    failed: "No answer: ",
    retry: (seconds) => ` Try again in ${seconds} s.`,
    lost: "the connection broke off",
    measured: ({ characters, first, speed }) =>
      `${characters} characters · first after ${first} · ${speed} characters/s`,
    latency: "Latency",
    load: ({ running, waiting }) => `${running} running · ${waiting} waiting`,
    window: (minutes) => `last ${minutes} min`,
    ago: (minutes) => `−${minutes} min`,
    now: "now",
    noSamples: "nothing in the last minutes",
    notAllowed: "This key may not read the server's latencies.",
    unreachable: "The server does not answer; trying again.",
    timeToFirstToken: "Time to first text",
    interToken: "Between two pieces of text",
    charactersPerSecond: "Characters per second",
    queue: "Wait in the queue",
    kvCache: "KV cache in use",
    slower: "p99: 99 % of the answers were at least this fast",
    objective: ({ ttft, perCharacter, share }) =>
      `Objective: ${share} of answers begin within ${ttft} and take at most ${perCharacter} per character`,
    goodput: "Met, 5m",
    burn: (window) => `Burn, ${window}`,
    none: "–",
    model: "Model",
    fidelity: "Fidelity",
    noFidelity: "Nothing was measured against a parent: the checkpoint is no release of a quantized export.",
    card: "Model card",
    states: { ok: "ready", draining: "draining", "warming up": "warming up", stalled: "stalled", "the engine is dead": "engine dead", unreachable: "unreachable" },
    facts: {
      name: "Name",
      architecture: "Architecture",
      parameters: "Parameters",
      weights: "Weights",
      quantization: "Quantization",
      context: "Context",
      vocabulary: "Vocabulary",
      recipe: "Recipe",
      stage: "Stage",
      digest: "Digest",
      parent: "Parent",
      verified: "Lock",
    },
    values: { holds: "tokenizer and template as trained", unverified: "none: taken as it is", tokens: "tokens" },
  },
  ko: {
    other: "English",
    skip: "질문란으로 건너뛰기",
    keyLabel: "이 서버는 키가 필요합니다",
    keyUse: "이 키 사용",
    keyRefused: "서버가 이 키를 받아들이지 않습니다.",
    chat: "대화",
    clear: "새 대화",
    question: "질문",
    hint: "한국어나 영어로 물어보세요. Enter로 보내고 Shift+Enter로 줄을 바꿉니다.",
    empty: "물어보세요: 대한민국의 수도는 어디인가요?",
    sampling: "샘플링",
    temperature: "온도",
    maxTokens: "최대 토큰 수",
    stop: "중지",
    send: "보내기",
    you: "나",
    answer: "모델",
    stopped: "중지됨",
    ends: { length: "토큰 한도에서 끊김", content_filter: "안전 검사로 중단됨" },
    answered: "답변이 끝났습니다.",
    wasStopped: "답변을 중지했습니다.",
    failed: "답변 없음: ",
    retry: (seconds) => ` ${seconds}초 뒤에 다시 시도하세요.`,
    lost: "연결이 끊어졌습니다",
    measured: ({ characters, first, speed }) => `${characters}자 · 첫 글자까지 ${first} · 초당 ${speed}자`,
    latency: "지연 시간",
    load: ({ running, waiting }) => `실행 ${running} · 대기 ${waiting}`,
    window: (minutes) => `최근 ${minutes}분`,
    ago: (minutes) => `−${minutes}분`,
    now: "지금",
    noSamples: "최근 몇 분 동안 기록 없음",
    notAllowed: "이 키로는 서버의 지연 시간을 볼 수 없습니다.",
    unreachable: "서버가 응답하지 않아 다시 시도합니다.",
    timeToFirstToken: "첫 글자까지",
    interToken: "글 조각 사이 간격",
    charactersPerSecond: "초당 글자 수",
    queue: "대기열에서 기다린 시간",
    kvCache: "KV 캐시 사용률",
    slower: "p99: 답변의 99%가 이보다 빨랐음",
    objective: ({ ttft, perCharacter, share }) => `목표: 답변의 ${share}가 ${ttft} 안에 시작하고 글자당 ${perCharacter}를 넘지 않음`,
    goodput: "달성률, 5m",
    burn: (window) => `예산 소진, ${window}`,
    none: "–",
    model: "모델",
    fidelity: "충실도",
    noFidelity: "원본과 비교한 기록이 없습니다: 양자화해 공개한 체크포인트가 아닙니다.",
    card: "모델 카드",
    states: { ok: "준비됨", draining: "마무리 중", "warming up": "준비 중", stalled: "멈춤", "the engine is dead": "엔진 종료됨", unreachable: "연결 안 됨" },
    facts: {
      name: "이름",
      architecture: "구조",
      parameters: "매개변수",
      weights: "가중치",
      quantization: "양자화",
      context: "문맥 길이",
      vocabulary: "어휘",
      recipe: "레시피",
      stage: "단계",
      digest: "다이제스트",
      parent: "원본",
      verified: "잠금",
    },
    values: { holds: "학습 때의 토크나이저와 템플릿", unverified: "없음: 있는 그대로 사용", tokens: "토큰" },
  },
};

const STORED = "malmoi.language";
let language = initial();

function initial() {
  let stored = null;
  try {
    stored = localStorage.getItem(STORED);
  } catch {
    // storage is forbidden: the browser's language it is
  }
  return stored in WORDS ? stored : navigator.language.startsWith("ko") ? "ko" : "en";
}

export const words = () => WORDS[language];

export function applyWords() {
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-word]")) {
    element.textContent = words()[element.dataset.word];
  }
  for (const element of document.querySelectorAll("[data-hint]")) {
    element.placeholder = words()[element.dataset.hint];
  }
}

export function switchLanguage() {
  language = language === "ko" ? "en" : "ko";
  try {
    localStorage.setItem(STORED, language);
  } catch {
    // as above
  }
}

const digits = (value) => (value >= 100 ? value.toFixed(0) : Number(value.toPrecision(2)).toString());

export function duration(seconds) {
  if (seconds < 0.001) return "<1 ms";
  return seconds < 1 ? `${digits(seconds * 1000)} ms` : `${digits(seconds)} s`;
}

export const rate = digits;
export const share = (value) => `${Math.floor(value * 1000 + 1e-6) / 10} %`; // never rounded up to all of it
