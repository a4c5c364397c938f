/** Prints docs/errors.md, the catalogue of problems, from the sources that have them. `npm run docs` writes it. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import ts from "typescript";

const ROOT = join(import.meta.dirname, "..");
const SOURCES = ["ir/diagnostics.ts", "schedules/diagnostics.ts", "src/words/diagnostics.ts"];

const trees = SOURCES.map((file) => ts.createSourceFile(file, readFileSync(join(ROOT, file), "utf8"), ts.ScriptTarget.Latest, true));

/** The nodes at and below one that a test holds for, in the order of the text. */
function within(node, test) {
  const below = [];
  ts.forEachChild(node, (child) => {
    below.push(...within(child, test));
  });
  return test(node) ? [node, ...below] : below;
}

/** The words that an expression makes: ‹what is known at run time›, [what may be missing], (one / other). */
function words(node) {
  if (ts.isStringLiteralLike(node)) return node.text;
  if (ts.isTemplateExpression(node))
    return node.templateSpans.reduce((text, { expression, literal }) => joined(text, words(expression)) + literal.text, node.head.text);
  if (ts.isConditionalExpression(node)) return eitherOf(words(node.whenTrue), words(node.whenFalse));
  if (ts.isBinaryExpression(node)) {
    const isChoice = ["??", "||"].includes(node.operatorToken.getText());
    return isChoice ? eitherOf(words(node.left), words(node.right)) : `‹${node.getText()}›`;
  }
  return `‹${subject(node)}›`;
}

function eitherOf(one, other) {
  if (one === "" || other === "") return `[${one}${other}]`;
  return `(${one} / ${other})`;
}

/** A value in two parts, as a word and its capital letter are, is said once. */
function joined(text, part) {
  return part.startsWith("‹") && text.endsWith(part) ? text : text + part;
}

/** What an expression is about: `shape` of `shape.join(", ")`, `value` of `where.value`. */
function subject(node) {
  if (ts.isCallExpression(node) && ts.isPropertyAccessExpression(node.expression)) return subject(node.expression.expression);
  return ts.isPropertyAccessExpression(node) ? node.name.text : node.getText();
}

/** For a cell of a table: in one line, with nothing that Markdown or HTML would take for its own. */
function cell(text) {
  const parts = text
    .replaceAll("\n", " ")
    .replaceAll("|", "\\|")
    .split(/(`[^`]*`)/);
  return parts.map((part) => (part.startsWith("`") ? part : part.replaceAll(/[<*]/g, "\\$&"))).join("");
}

const exitCodes = trees
  .flatMap((tree) => within(tree, (node) => ts.isVariableDeclaration(node) && node.name.getText() === "EXIT_CODES"))
  .flatMap((list) => within(list, ts.isPropertyAssignment))
  .map(({ name, initializer }) => [name.getText(), words(initializer)]);

const problems = trees
  .flatMap((tree) => within(tree, (node) => ts.isNewExpression(node) && node.expression.getText() === "CompilerError"))
  .map((made) => [...made.arguments])
  .map(([code, exit, message, hint]) => [words(code), exit.getText(), words(message), words(hint)])
  .sort(([a], [b]) => (a < b ? -1 : 1))
  .map(([code, ...others]) => [`\`${code}\``, ...others]);

const row = (cells) => `| ${cells.map(cell).join(" | ")} |`;

console.log(`# Errors

A command that fails says \`error CODE\`, what is wrong, where, and what to do; with \`--json\`, as
\`{"error": {"code", "message", "hint", "where"}}\` on stderr. Made by \`npm run docs\` from the sources.

| exit code | |
|---|---|
${exitCodes.map(row).join("\n")}

‹name› stands for what is known then, [words in brackets] may be missing, (one / other) is one of them.

| code | exit code | what it says | what to do |
|---|---|---|---|
${problems.map(row).join("\n")}`);
