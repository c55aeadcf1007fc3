// Draws puzzles and answers. A board is the grid that the API sends; how it is drawn depends on the kind of task.

/** The colours of the style sheet, for canvases. */
export function palette() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(`--${name}`).trim();
  return {
    ink: of("ink"), accent: of("accent"), line: of("rule"), frame: of("muted"), surface: of("surface"), square: of("square"),
    given: of("given"), fresh: of("fresh"), wrong: of("wrong"),
    vertices: [of("vertex-1"), of("vertex-2"), of("vertex-3")], onVertex: of("on-vertex"),
    font: style.fontFamily,
  };
}

/** The kind of a task: "sudoku" for "sudoku-9x9". */
const kind = (task) => task.split("-")[0];

/**
 * Draw a board onto a square canvas of `size` pixels. The puzzle's own cells are marked as given, and cells that differ from
 * the board `before` as fresh. Without an answer it draws the puzzle. A Sudoku's boxes have `boxRows` rows, or the usual number.
 */
export function draw(canvas, size, colors, task, puzzle, answer = puzzle, before = answer, boxRows = null) {
  if (canvas.width !== size || canvas.height !== size) canvas.width = canvas.height = size;
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, size, size);
  context.lineWidth = Math.max(1, size / 160);
  (DRAWERS[kind(task)] ?? numbers)(context, size, colors, puzzle, answer, before, boxRows);
}

const DRAWERS = { nqueens: queens, sudoku, coloring: graph, maze };

function queens(context, size, colors, puzzle, answer, before) {
  const cell = size / answer.length;
  const standing = squares(answer).filter(([row, column]) => answer[row][column]);
  const line = (r, c, s, d) => r === s || c === d || Math.abs(r - s) === Math.abs(c - d);
  const attacked = ([r, c]) => standing.some(([s, d]) => (r !== s || c !== d) && line(r, c, s, d));
  for (const [row, column] of squares(answer)) {
    const ground = background(colors, puzzle[row][column], answer[row][column] !== before[row][column]);
    const color = ground ?? ((row + column) % 2 ? colors.square : colors.surface);
    fill(context, color, column * cell, row * cell, cell, cell);
  }
  for (const [row, column] of standing) {
    const color = attacked([row, column]) ? colors.wrong : puzzle[row][column] ? colors.ink : colors.accent;
    crown(context, color, (column + 0.5) * cell, (row + 0.5) * cell, cell * 0.4);
  }
  frame(context, colors, size);
}

function sudoku(context, size, colors, puzzle, answer, before, boxRows) {
  const count = answer.length;
  const rows = boxRows || Math.floor(Math.sqrt(count));
  const columns = count / rows;
  const cell = size / count;
  const box = (r, c) => Math.floor(r / rows) * rows + Math.floor(c / columns);
  const filled = squares(answer).filter(([r, c]) => answer[r][c]);
  const unit = (r, c, s, d) => r === s || c === d || box(r, c) === box(s, d);
  const twice = ([r, c]) => filled.some(([s, d]) => answer[r][c] === answer[s][d] && (r !== s || c !== d) && unit(r, c, s, d));
  for (const [row, column] of squares(answer)) {
    const ground = background(colors, puzzle[row][column], answer[row][column] !== before[row][column]);
    fill(context, ground ?? colors.surface, column * cell, row * cell, cell, cell);
  }
  for (let i = 1; i < count; i++) {
    rule(context, colors.line, 1, [i * cell, 0], [i * cell, size]);
    rule(context, colors.line, 1, [0, i * cell], [size, i * cell]);
  }
  for (let i = columns; i < count; i += columns) rule(context, colors.frame, 2, [i * cell, 0], [i * cell, size]);
  for (let i = rows; i < count; i += rows) rule(context, colors.frame, 2, [0, i * cell], [size, i * cell]);
  for (const [row, column] of filled) {
    const given = puzzle[row][column];
    const color = twice([row, column]) ? colors.wrong : given ? colors.ink : colors.accent;
    const [x, y] = [(column + 0.5) * cell, (row + 0.5) * cell];
    text(context, colors, color, answer[row][column], x, y, cell * 0.62, given ? 650 : 450);
  }
  frame(context, colors, size);
}

/** Draws walls, the start and the goal, and the path. A cell of it on a wall, or where it ends before the goal, is wrong. */
function maze(context, size, colors, puzzle, answer, before) {
  const [WALL, START, GOAL, PATH] = [0, 2, 3, 4];
  const cell = size / answer.length;
  const onPath = (row, column) => [START, GOAL, PATH].includes(answer[row]?.[column]);
  const ends = (row, column) => {
    const beside = [[row - 1, column], [row + 1, column], [row, column - 1], [row, column + 1]];
    return beside.filter(([r, c]) => onPath(r, c)).length < 2;
  };
  for (const [row, column] of squares(answer)) {
    const [x, y, symbol] = [column * cell, row * cell, answer[row][column]];
    const wall = puzzle[row][column] === WALL;
    const ground = wall ? colors.frame : symbol !== before[row][column] ? colors.fresh : colors.surface;
    fill(context, ground, x, y, cell, cell);
    if (symbol === PATH) {
      const color = wall || ends(row, column) ? colors.wrong : colors.accent;
      disc(context, color, x + cell / 2, y + cell / 2, cell * 0.32);
    } else if (symbol === START || symbol === GOAL) {
      text(context, colors, colors.ink, symbol === START ? "S" : "G", x + cell / 2, y + cell / 2, cell * 0.85, 650);
    }
  }
  frame(context, colors, size);
}

/** Draws the vertices on a circle. An answer has a colour for each vertex; the matrix of the puzzle stands for no colours. */
function graph(context, size, colors, puzzle, answer, before) {
  const paint = (board) => (Array.isArray(board[0]) ? board.map(() => -1) : board);
  const [now, then] = [paint(answer), paint(before)];
  const radius = size * 0.075;
  const places = puzzle.map((_, i) => {
    const angle = (2 * Math.PI * i) / puzzle.length - Math.PI / 2;
    return [size / 2 + size * 0.4 * Math.cos(angle), size / 2 + size * 0.4 * Math.sin(angle)];
  });
  for (const [i, j] of squares(puzzle)) {
    if (i < j && puzzle[i][j]) {
      const clash = now[i] >= 0 && now[i] === now[j];
      rule(context, clash ? colors.wrong : colors.frame, clash ? 3 : 1, places[i], places[j]);
    }
  }
  places.forEach(([x, y], i) => {
    if (now[i] !== then[i]) disc(context, colors.fresh, x, y, radius * 1.6);
    disc(context, now[i] >= 0 ? colors.vertices[now[i]] : colors.surface, x, y, radius, colors.frame);
    if (now[i] >= 0) text(context, colors, colors.onVertex, now[i] + 1, x, y, radius * 1.3, 650);
  });
}

/** Draws the numbers of any other kind of task. */
function numbers(context, size, colors, puzzle, answer, before) {
  const width = Math.ceil(Math.sqrt(answer.length)); // of a list without rows
  const wrapped = (list) => Array.from({ length: Math.ceil(list.length / width) }, (_, i) => list.slice(i * width, (i + 1) * width));
  const rows = (board) => (Array.isArray(board[0]) ? board : wrapped(board));
  const [board, given, then] = [rows(answer), rows(puzzle), rows(before)];
  const cell = size / Math.max(board.length, board[0].length);
  for (const [row, column] of squares(board)) {
    const ground = background(colors, given[row]?.[column], board[row][column] !== then[row]?.[column]);
    fill(context, ground ?? colors.surface, column * cell, row * cell, cell, cell);
    text(context, colors, colors.ink, board[row][column], (column + 0.5) * cell, (row + 0.5) * cell, cell * 0.5, 450);
  }
}

const background = (colors, given, fresh) => (given ? colors.given : fresh ? colors.fresh : null);

const squares = (board) => board.flatMap((row, i) => row.map((_, j) => [i, j]));

function fill(context, color, x, y, width, height) {
  context.fillStyle = color;
  context.fillRect(Math.floor(x), Math.floor(y), Math.ceil(width), Math.ceil(height));
}

function rule(context, color, width, from, to) {
  context.strokeStyle = color;
  const thin = context.lineWidth;
  context.lineWidth = thin * width;
  context.beginPath();
  context.moveTo(...from);
  context.lineTo(...to);
  context.stroke();
  context.lineWidth = thin;
}

function frame(context, colors, size) {
  const half = context.lineWidth / 2;
  context.strokeStyle = colors.frame;
  context.strokeRect(half, half, size - 2 * half, size - 2 * half);
}

function disc(context, color, x, y, radius, outline = null) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = color;
  context.fill();
  if (outline) {
    context.strokeStyle = outline;
    context.stroke();
  }
}

function text(context, colors, color, value, x, y, height, weight) {
  context.fillStyle = color;
  context.font = `${weight} ${height}px ${colors.font}`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(value, x, y + height * 0.06);
}

/** Draws a queen. It is not written as a character because not every phone has one. */
function crown(context, color, x, y, r) {
  const points = [[-0.95, -0.5], [-0.48, 0.1], [0, -0.85], [0.48, 0.1], [0.95, -0.5], [0.68, 0.8], [-0.68, 0.8]];
  context.fillStyle = color;
  context.beginPath();
  for (const [dx, dy] of points) context.lineTo(x + dx * r, y + dy * r);
  context.fill();
  for (const [dx, dy] of [points[0], points[2], points[4]]) disc(context, color, x + dx * r, y + dy * r, r * 0.17);
}

/** The grid of a typed puzzle, for the drawing beside it; null for a format that only the server can parse. */
export function read(task, puzzle) {
  const size = parseInt(task.split("-")[1], 10);
  const grid = { nqueens: readQueens, sudoku: readRows, coloring: readGraph, maze: readMaze }[kind(task)]?.(puzzle, size);
  return grid?.length && grid.every((row) => row?.length === grid.length) ? grid : null;
}

const blank = (size) => Array.from({ length: size }, () => Array(size).fill(0));

function readRows(puzzle, size, symbol = (s) => parseInt(s, 10) || 0) {
  if (Array.isArray(puzzle) && puzzle.every(Array.isArray)) {
    return puzzle.length === size ? puzzle.map((row) => row.map(symbol)) : null;
  }
  const lines = [puzzle].flat().join("\n").split("\n");
  const symbols = lines.filter((line) => /[^\s\-+=|]/.test(line)).join("").replace(/[\s|,;/]/g, ""); // without rulers
  if (symbols.length !== size * size) return null;
  return blank(size).map((row, i) => row.map((_, j) => symbol(symbols[i * size + j])));
}

function readQueens(puzzle, size) {
  const named = typeof puzzle === "string" && puzzle.trim().split(/[\s,;|/]+/);
  let queens = puzzle?.queens;
  if (named && named.every((word) => /^[a-z]\d+$/i.test(word))) {
    queens = named.map((word) => [size - parseInt(word.slice(1), 10), word.toLowerCase().charCodeAt(0) - 97]);
  }
  if (!Array.isArray(queens)) return readRows(puzzle, size, (s) => Number("Qq1*".includes(s)));
  const grid = blank(size);
  for (const [row, column] of queens) if (grid[row]) grid[row][column] = 1;
  return grid;
}

function readMaze(puzzle, size) {
  const parts = typeof puzzle === "string" ? [puzzle.replace(/\r?\n|\//g, "")] : [puzzle].flat(2);
  const symbols = parts.flatMap((part) => (typeof part === "string" ? [...part.toUpperCase()] : part));
  if (symbols.length !== size * size) return null;
  const first = symbols.every((symbol) => symbol > 0) ? 1 : 0; // the number of a wall: tokens have 1 added
  const named = { "#": 0, "\u2588": 0, ".": 1, " ": 1, S: 2, G: 3, E: 3, F: 3, X: 3, O: 4 };
  return blank(size).map((row, i) => row.map((_, j) => named[symbols[i * size + j]] ?? symbols[i * size + j] - first));
}

function readGraph(puzzle) {
  if (Array.isArray(puzzle)) return puzzle;
  let [count, edges] = [puzzle?.num_vertices, puzzle?.edges];
  if (typeof puzzle === "string") {
    count = parseInt(puzzle.match(/^\s*p\s+\w+\s+(\d+)/m)?.[1], 10);
    edges = [...puzzle.matchAll(/^\s*e\s+(\d+)\s+(\d+)/gm)].map(([, i, j]) => [i - 1, j - 1]);
  }
  if (!(count <= 64) || !Array.isArray(edges)) return null;
  const grid = blank(count);
  for (const [i, j] of edges) if (grid[i] && grid[j]) grid[i][j] = grid[j][i] = 1;
  return grid;
}
